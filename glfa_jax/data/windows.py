"""Which volume a clip's window begins with: arithmetic of seconds, for any run."""

import math

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
