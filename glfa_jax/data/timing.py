"""Which repetition time holds where a scan's header and its sidecar say different things."""

import math
from pathlib import Path
from typing import Literal

from glfa_jax.data import DataError

# How far a header may be from the sidecar, seconds: some programs keep TR in few digits.
TIME_TOLERANCE = 1e-3
PLAUSIBLE = (0.05, 20.0)  # seconds; no scanner takes whole volumes faster, nobody waits longer
# What many programs leave in a header when they do not know: a 1, of seconds or milliseconds.
UNSET = (1.0, 1e-3)
UNIT_SLIPS = (1e-6, 1e-3, 1e3, 1e6)  # header through sidecar where one of them names another unit

Trust = Literal["agreeing", "sidecar", "header"]


def repetition_time(
    path: Path,
    *,
    header: float,
    sidecar: float,
    trust: Trust,
    notes: list[str],
    source: str = "its sidecar",
) -> float:
    """Seconds from one volume of the scan at `path` to the next; raises DataError.

    header: what the scan itself says, 0 where it says nothing.
    trust: which holds where they differ. With "agreeing" a header that is surely a mistake, the
        usual default, no time at all or the sidecar's number in another unit, is noted; any other
        is rejected.
    source: of `sidecar`, in words.
    """
    if abs(header - sidecar) <= TIME_TOLERANCE or header == 0:
        return _plausible(path, sidecar)
    differ = f"{path}: its header says TR {header:g} s and {source} {sidecar:g} s"
    slip = any(math.isclose(header, slip * sidecar, rel_tol=1e-3) for slip in UNIT_SLIPS)
    unset = header in UNSET or not 0 < header < math.inf
    if trust == "agreeing" and not (slip or unset):
        raise DataError(
            f"{differ}; correct the wrong one, or let data.repetition_time say which to trust"
        )
    seconds = _plausible(path, header if trust == "header" else sidecar)
    notes.append(f"{differ}; taken to be {seconds:g} s")
    return seconds


def _plausible(path: Path, seconds: float) -> float:
    if not PLAUSIBLE[0] <= seconds <= PLAUSIBLE[1]:
        raise DataError(
            f"{path}: RepetitionTime {seconds:g} s is implausible, must be from {PLAUSIBLE[0]:g} "
            f"to {PLAUSIBLE[1]:g} s; BIDS counts in seconds"
        )
    return seconds
