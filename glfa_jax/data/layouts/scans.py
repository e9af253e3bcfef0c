"""The files of a run's series in BIDS: one, or one of each hemisphere."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from glfa_jax.data import DataError
from glfa_jax.data.layouts import Blocks
from glfa_jax.data.layouts.naming import Name
from glfa_jax.data.readers import cifti, gifti_pair, volume
from glfa_jax.data.surfaces import Surfaces

GIFTI, CIFTI, VOLUME = ".func.gii", ".dtseries.nii", ".nii.gz"
SERIES = (GIFTI, CIFTI, f"{CIFTI}.gz", VOLUME, ".nii")


def lacking_side(scans: Sequence[Name]) -> str:
    """The hemisphere that is not there beside the other one; empty for none."""
    if any(name.extension != GIFTI for name in scans):
        return ""
    there = {name.entities.get("hemi") for name in scans}
    return next((word for side, word in (("L", "left"), ("R", "right")) if side not in there), "")


def scans_of(scans: Sequence[Name]) -> tuple[Path, ...]:
    """The one file, or one a hemisphere, that a run is read from."""
    first = scans[0].path
    if {name.extension for name in scans} != {GIFTI}:
        if len(scans) > 1:
            several = ", ".join(name.path.name for name in scans)
            raise DataError(
                f"{first.parent}: one run in several forms ({several}); leave one of them there"
            )
        return (first,)
    sides = []
    for side in "LR":
        found = [name for name in scans if name.entities.get("hemi") == side]
        if len(found) > 1:
            several = ", ".join(name.path.name for name in found)
            raise DataError(
                f"{first.parent}: one hemisphere in several forms ({several}); leave one of them "
                "there"
            )
        sides.append(found[0].path)
    return tuple(sides)


def reader_of(kind: str, paths: tuple[Path, ...], mesh: Callable[[], Surfaces]) -> partial[Blocks]:
    if kind == GIFTI:
        return partial(gifti_pair, *paths)
    if kind.startswith(CIFTI):
        return partial(cifti, *paths)
    return partial(volume, *paths, mesh())
