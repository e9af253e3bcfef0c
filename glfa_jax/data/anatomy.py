"""Maps of each subject's anatomy that lie beside the scans, one GIFTI file a map and hemisphere.

sub-01[/ses-1]/anat/sub-01[_ses-1]_hemi-{L,R}_space-fsaverage5[_...]_curv.shape.gii

and the same with other suffixes of `MAPS`, as BIDS derivatives call the maps that FreeSurfer and
others make. They must lie on the mesh of the scans. What is not there is not missed.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from glfa_jax.data import DataError
from glfa_jax.data.flatmap import FlatMap
from glfa_jax.data.gifti import SIDES, read_series
from glfa_jax.data.layouts import Problems, Sides
from glfa_jax.data.layouts.naming import Dataset, Name

# myelinw: the ratio of T1w to T2w.
MAPS = ("curv", "sulc", "thickness", "myelinw")
EXTENSIONS = (".shape.gii", ".shape.gii.gz")


class Drawn(NamedTuple):
    """A subject's maps on the flat map, in the units of their files, and what they are called."""

    names: list[str]
    maps: Float[ndarray, "k h w"]


def find(dataset: Dataset, subject: str, *, space: str, notes: list[str]) -> dict[str, Sides]:
    """The files of each of a subject's maps; of one that cannot be told a note says why."""
    found: dict[str, Sides] = {}
    there = [
        name
        for name in dataset.anatomical(subject)
        if name.suffix in MAPS
        and name.extension in EXTENSIONS
        and name.entities.get("space") == space
    ]
    for suffix in MAPS:
        sides = [
            [name for name in there if (name.suffix, name.entities.get("hemi")) == (suffix, side)]
            for side in "LR"
        ]
        counts = [len(names) for names in sides]
        if counts == [1, 1]:
            left, right = (names[0].path for names in sides)
            found[suffix] = (left, right)
        elif any(counts):
            notes.append(_untold(suffix, [*sides[0], *sides[1]]))
    return found


def _untold(suffix: str, names: list[Name]) -> str:
    listed = ", ".join(name.path.name for name in names)
    return (
        f"{names[0].path.parent}: map of anatomy {suffix} left out, needs one file of each "
        f"hemisphere, has {listed}"
    )


def draw(found: Mapping[str, Sides], flat: FlatMap, problems: Problems) -> Drawn | None:
    """None where no map is left. A map that cannot be drawn is a problem."""
    drawn: dict[str, Float[ndarray, "h w"]] = {}
    for name, paths in found.items():
        try:
            drawn[name] = flat.to_map(np.concatenate(list(_values(paths, flat))))
        except DataError as error:
            problems.add(error)
    if not drawn:
        return None
    return Drawn(list(drawn), np.stack(list(drawn.values())).astype(np.float32))


def _values(paths: Sides, flat: FlatMap) -> Iterator[Float[ndarray, " v"]]:
    """At the vertices of each hemisphere; zero where no pixel draws on them."""
    used = np.split(flat.used, [flat.sides[0]])
    for path, side, drawn in zip(paths, SIDES, used, strict=True):
        series = read_series(path, side=side)
        if series.shape != (1, len(drawn)):
            raise DataError(
                f"{path}: holds {len(series)} values at each of {series.shape[1]} vertices, must "
                f"hold one at each of the {len(drawn)} that the scans have; remove it to prepare "
                "without it"
            )
        if not np.isfinite(series[0, drawn]).all():
            raise DataError(
                f"{path}: is not finite on all of the cortex that is shown; remove it to prepare "
                "without it"
            )
        yield np.where(drawn, series[0], 0)
