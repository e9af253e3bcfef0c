"""Long films to clips of one length; and a run's clips to stretches of train and of test.

Nothing here knows a study: seconds, volumes and names are all that it takes.
"""

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np

from glfa_jax.data import DataError
from glfa_jax.data.film import Film
from glfa_jax.data.layouts import Run, Split, Trial
from glfa_jax.data.readers import trimmed
from glfa_jax.data.windows import check_begin, first_volume

UNNUMBERED = -1  # the repeat of a showing until `numbered` has counted
ROUNDING = 1e-3  # seconds
# Seconds by which a table and a film may differ, in its length or when the next begins: many tables
# count whole ones.
ROUNDED = 1.0
FEWEST = 20  # volumes that can be z-scored by themselves


@dataclass(frozen=True)
class Showing:
    """A stretch of a film on screen, in seconds.

    onset: on the run's clock. start: in the film. duration: to the film's end if infinite.
    """

    film: str
    onset: float
    start: float = 0.0
    duration: float = math.inf
    repeat: int = UNNUMBERED


def cut(showing: Showing, *, seconds: float) -> list[tuple[Trial, float]]:
    """The clips that lie wholly in what is shown, each with where it begins in the film.

    A clip, `film/000` on, begins at a multiple of `seconds` in the film, however the film is shown:
    what is shown again has one name.
    """
    if math.isinf(showing.duration):
        raise ValueError(f"{showing.film}: how long it is shown must be known")
    number, clips = math.ceil((showing.start - ROUNDING) / seconds), []
    while seconds * (number + 1) <= showing.start + showing.duration + ROUNDING:
        begin = seconds * number
        onset = showing.onset + begin - showing.start
        name = f"{showing.film}/{number:03d}"
        clips.append(
            (Trial(name, onset, seconds, showing.repeat, showing.film, showing.onset), begin)
        )
        number += 1
    return clips


def length_of(path: Path) -> float:
    """Seconds that a film lasts, by its frames."""
    with closing(Film(path)) as film:
        return film.end


def check_length(showing: Showing, *, path: Path, length: float, said: str) -> Showing:
    """The showing with its duration; raises DataError where the film at `path` is too short.

    said: where the showing is stated.
    """
    left = length - showing.start
    if left <= 0:
        raise DataError(
            f"{path}: lasts {length:g} s, but {said} says that it is shown from "
            f"{showing.start:g} s on"
        )
    if left + ROUNDED < showing.duration < math.inf:
        raise DataError(
            f"{path}: lasts {length:g} s, but {said} says that it is shown up to "
            f"{showing.start + showing.duration:g} s"
        )
    return replace(showing, duration=min(showing.duration, left))


def check_one_at_a_time(showings: Sequence[Showing], *, said: str) -> None:
    """Raises DataError where one film, whose duration is known by now, goes on into another."""
    for film, later in pairwise(sorted(showings, key=lambda showing: showing.onset)):
        end = film.onset + film.duration
        if end > later.onset + ROUNDED:
            raise DataError(
                f"{said}: {film.film} is shown until {end:g} s, but {later.film} from "
                f"{later.onset:g} s on; state a duration"
            )


def check_step(seconds: float, *, step: float, where: str) -> None:
    """Raises DataError where clips are shorter than a volume: two would have one window."""
    if seconds < step - ROUNDING:
        raise DataError(
            f"{where}: clips of {seconds:g} s are shorter than a volume, must be at least the "
            f"repetition time, {step:g} s"
        )


def numbered(runs: Sequence[Run]) -> list[Run]:
    """Showings without a number get the next one that the clip has not had of the subject."""
    taken: dict[tuple[str, str], set[int]] = {}
    for run in runs:
        for trial in run.trials:
            taken.setdefault((run.subject, trial.clip), set()).add(trial.repeat)

    def number(run: Run, trial: Trial) -> Trial:
        if trial.repeat != UNNUMBERED:
            return trial
        seen = taken[run.subject, trial.clip]
        repeat = next(i for i in range(1, len(seen) + 2) if i not in seen)
        seen.add(repeat)
        return replace(trial, repeat=repeat)

    return [replace(run, trials=tuple(number(run, trial) for trial in run.trials)) for run in runs]


def apart(
    run: Run, labelled: Sequence[tuple[Trial, Split]], *, lag: float, window: int, gap: float
) -> list[tuple[Trial, Split]]:
    """Clips in the order of their onsets, without training clips too near to a test clip: those
    less than `gap` seconds from one, or whose window shares a volume with its, whatever the gap."""
    tests = [trial for trial, split in labelled if split == "test"]
    begins = np.array([trial.onset for trial in tests])
    ends = begins + [trial.duration for trial in tests]
    firsts = np.array([_first(run, trial, lag) for trial in tests], float)  # NaN without a window

    def is_apart(trial: Trial) -> bool:
        end = trial.onset + trial.duration
        distances = np.maximum(begins, trial.onset) - np.minimum(ends, end)
        first = _first(run, trial, lag)
        shared = first is not None and bool((np.abs(firsts - first) < window).any())
        return not shared and bool((distances >= gap - ROUNDING).all())

    kept = [each for each in labelled if each[1] == "test" or is_apart(each[0])]
    return sorted(kept, key=lambda each: each[0].onset)


def divide(
    run: Run, kept: Sequence[tuple[Trial, Split]], *, lag: float, window: int, volumes: int
) -> list[Run]:
    """The stretches of a run that show train and test clips, each as a run of its own.

    A stretch has the volumes of its clips' windows alone, so it is z-scored without any volume of
    another. Clips of which the scan holds too little are missing in another stretch of their split,
    and in none where there is no other. kept: as `apart` gives them. volumes: of the run.
    """
    if len({split for _, split in kept}) == 1:  # nothing to keep it apart from
        return [replace(run, split=kept[0][1], trials=tuple(trial for trial, _ in kept))]
    made: list[Run] = []
    lost: list[tuple[Trial, Split]] = []
    for split, group in groupby(kept, key=lambda each: each[1]):
        shown = list(group)
        trials = tuple(trial for trial, _ in shown)
        for trial in trials:
            check_begin(run, trial, volumes)
        firsts = [_first(run, trial, lag) for trial in trials]
        taken = [first for first in firsts if first is not None]  # the others are before the scan
        begin, end = min(taken, default=volumes), max(taken, default=0) + window
        held = min(end, volumes) - begin
        if held < FEWEST:
            if None not in firsts and end <= volumes:
                raise DataError(
                    f"sub-{run.subject} run {run.name}: data.split makes a stretch of {held} "
                    f"volumes, which needs {FEWEST} to be z-scored by itself; make stretches "
                    "longer, or divide by run"
                )
            lost += shown
            continue
        count = sum(each.split == split for each in made)
        end = min(end, volumes)
        made.append(
            replace(
                run,
                name=f"{run.name}_{split}{count + 1 if count else ''}",
                split=split,
                trials=trials,
                start_time=run.start_time + begin * run.repetition_time,
                blocks=partial(trimmed, run.blocks, run.scans[0], begin, volumes - end),
                dropped=(run.dropped[0] + begin, run.dropped[1] + volumes - end),
            )
        )
    if not made:
        raise DataError(
            f"sub-{run.subject} run {run.name}: of no stretch that data.split makes does the scan "
            f"hold {FEWEST} volumes, it has {volumes}; its events or its scan are not whole"
        )
    return [_with_missing(each, made, lost) for each in made]


def _with_missing(run: Run, made: Sequence[Run], lost: Sequence[tuple[Trial, Split]]) -> Run:
    """The first stretch of a split with the clips that no stretch of it shows, all others as they
    are."""
    if run is not next(each for each in made if each.split == run.split):
        return run
    return replace(
        run, trials=(*run.trials, *(trial for trial, split in lost if split == run.split))
    )


def _first(run: Run, trial: Trial, lag: float) -> int | None:
    return first_volume(trial.onset, lag=lag, start=run.start_time, step=run.repetition_time)
