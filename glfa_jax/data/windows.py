"""Which volume a clip's window begins with: arithmetic of seconds, for any run."""

import math

from glfa_jax.data import DataError
from glfa_jax.data.layouts import Run, Trial

TIES = 1e-6  # volumes; of two that are as near as this the earlier one is taken


def first_volume(onset: float, *, lag: float, start: float, step: float) -> int | None:
    """The volume nearest to onset + lag, the earlier of two equally near, counted from 0.

    start: the time that volume 0 shows, seconds on the clock of the onset; more than a step where
        volumes before it were dropped. step: seconds from one volume to the next.

    None where that volume was dropped or never taken, as for clips before the scan.
    """
    volume = (onset + lag - start) / step
    if (start > step or onset < 0) and volume < -0.5 - TIES:
        return None
    return max(math.ceil(volume - 0.5 - TIES), 0)


def window_of(run: Run, trial: Trial, *, lag: float, window: int, volumes: int) -> int | None:
    """The volume that a clip's window begins with; None where it is not wholly in the run."""
    first = first_volume(trial.onset, lag=lag, start=run.start_time, step=run.repetition_time)
    return None if first is None or first + window > volumes else first


def end_of(run: Run, volumes: int) -> float:
    """Seconds at which the last of the run's volumes ends; those dropped before it count."""
    step = run.repetition_time
    dropped = math.floor(run.start_time / step) if run.start_time > step else 0
    return (dropped + volumes) * step


def check_begin(run: Run, trial: Trial, volumes: int) -> None:
    """Raises DataError for a clip, or a film, that begins after the end of its run."""
    end = end_of(run, volumes)
    if trial.begins >= end + run.dropped[1] * run.repetition_time:
        what = "a trial" if trial.film is None else f"film {trial.film}"
        raise DataError(
            f"sub-{run.subject} run {run.name}: {what} starts at {trial.begins:g} s, beyond the "
            f"end of the run at {end:g} s ({volumes} volumes); its events or its scan are not whole"
        )
