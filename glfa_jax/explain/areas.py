"""The cortex of a flat map divided into areas: those of a parcellation, or squares."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from glfa_jax.alignments.warping import hemispheres
from glfa_jax.data import regions
from glfa_jax.data.flatmap import FlatMap
from glfa_jax.data.gifti import SIDES
from glfa_jax.errors import InputError

NO_AREA = "no area"  # cortex that a parcellation leaves out


@dataclass(frozen=True, eq=False)
class Areas:
    """Every pixel of the cortex belongs to one area.

    names: of the areas. number: of every pixel's area from 0, −1 off the cortex. source: what they
    are, in words.
    """

    names: tuple[str, ...]
    number: Int[np.ndarray, "height width"]
    source: str

    @property
    def pixels(self) -> Int[np.ndarray, " areas"]:
        """How many there are of each area."""
        return np.bincount(self.number[self.number >= 0], minlength=len(self.names))

    @property
    def shares(self) -> Float[np.ndarray, " areas"]:
        """Of the cortex, together 1."""
        return self.pixels / self.pixels.sum()

    def sums(self, maps: Float[np.ndarray, "*b height width"]) -> Float[np.ndarray, "*b areas"]:
        """Over the pixels of each area."""
        inside = self.number >= 0
        member = np.eye(len(self.names), dtype=np.float64)[self.number[inside]]
        return maps[..., inside].astype(np.float64) @ member

    def drawn(self, values: Float[np.ndarray, "*b areas"]) -> Float[np.ndarray, "*b height width"]:
        """Each area's value at all of its pixels, zero off the cortex."""
        return np.where(self.number >= 0, values[..., self.number], 0)


def of_numbers(number: Int[np.ndarray, "height width"], *, mask: np.ndarray) -> Areas:
    """Areas that are given as an image of whole numbers; each number on the cortex is one.

    Raises InputError for an image of another size or kind.
    """
    number = np.asarray(number)
    if number.shape != mask.shape or number.dtype.kind not in "iu":
        raise InputError(
            f"areas: {number.dtype} {number.shape}, must be whole numbers of the maps' size, "
            f"{mask.shape}"
        )
    known, place = np.unique(number[mask], return_inverse=True)
    found = np.full(mask.shape, -1)
    found[mask] = place
    return Areas(tuple(map(str, known.tolist())), found, "areas as given")


def squares(mask: Bool[np.ndarray, "height width"], *, count: int) -> Areas:
    """About `count` squares over both hemispheres.

    They are named by row from the top and column from the left of the whole map. Pieces at the rim
    that hold less than a quarter of a square belong to the nearest larger one of their hemisphere.
    """
    side = max(1, round(float(np.sqrt(mask.sum() / count))))
    number, names = np.full(mask.shape, -1), []
    for name, cortex in zip(SIDES, hemispheres(mask) > 0, strict=True):
        row, column = np.nonzero(cortex)
        if not len(row):
            continue
        cells = np.stack([row, column], axis=1) // side
        places, piece = np.unique(cells, axis=0, return_inverse=True)
        size = np.bincount(piece)
        centres = np.stack([np.bincount(piece, place) / size for place in (row, column)], axis=1)
        whole = np.flatnonzero(4 * size >= min(side**2, size.max()))
        away = np.square(centres[:, None] - centres[whole]).sum(-1)
        own = away.argmin(1)  # of a whole one, itself
        number[row, column] = len(names) + own[piece]
        names += [f"{name}, row {1 + i}, column {1 + j}" for i, j in places[whole].tolist()]
    return Areas(tuple(names), number, f"squares of {side} × {side} pixels")


def labelled(
    files: Sequence[Path], *, flat: FlatMap, mask: Bool[np.ndarray, "height width"]
) -> Areas:
    """The areas of a parcellation, both hemispheres' together; a pixel belongs to the one that most
    of its signal is drawn from.

    files: two label GIFTIs, left first, or one label CIFTI. Raises DataError where they cannot be
    read or are of another mesh.
    """
    left, right = flat.sides
    of_vertices = regions.names_of(files, sides=(left, right))
    known, area = np.unique(of_vertices, return_inverse=True)
    drawn = flat.draw_kinds(area)[mask]
    there, place = np.unique(drawn, return_inverse=True)
    number = np.full(mask.shape, -1)
    number[mask] = place
    names = tuple(str(known[i]) or NO_AREA for i in there)
    return Areas(names, number, f"areas of {' and '.join(path.name for path in files)}")
