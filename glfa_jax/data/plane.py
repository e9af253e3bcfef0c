"""Where both flat hemispheres lie on one image: left on the left, dorsal up."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

GAP = 2  # pixels between the hemispheres: no bilinear neighbourhood can touch both


@dataclass(frozen=True, eq=False)
class Plane:
    """points: row and column of every vertex, left and right; pixel centres are integers.

    pixel_mm: edge of a (square) pixel on the flat surfaces, mm.
    """

    points: tuple[Float[ndarray, "l 2"], Float[ndarray, "r 2"]]
    pixel_mm: float


def side_by_side(
    flats: tuple[Float[ndarray, "l 2"], Float[ndarray, "r 2"]],
    *,
    shown: tuple[Bool[ndarray, " l"], Bool[ndarray, " r"]],
    shape: tuple[int, int],
    margin: int,
) -> Plane:
    """The vertices `shown` fill an image of `shape` but for `margin` pixels, centred."""
    low = [flat[part].min(axis=0) for flat, part in zip(flats, shown, strict=True)]
    high = [flat[part].max(axis=0) for flat, part in zip(flats, shown, strict=True)]
    bottom, top = min(low[0][1], low[1][1]), max(high[0][1], high[1][1])
    widths = [high[i][0] - low[i][0] for i in (0, 1)]
    height, width = (size - 1 - 2 * margin for size in shape)
    pixel_mm = float(max(sum(widths) / (width - GAP), (top - bottom) / height))
    first_column = (shape[1] - 1 - (sum(widths) / pixel_mm + GAP)) / 2
    starts = (first_column, first_column + widths[0] / pixel_mm + GAP)
    first_row = (shape[0] - 1 - (top - bottom) / pixel_mm) / 2
    left, right = (
        np.stack(
            [
                first_row + (top - flat[:, 1]) / pixel_mm,
                start + (flat[:, 0] - corner[0]) / pixel_mm,
            ],
            axis=1,
        )
        for flat, start, corner in zip(flats, starts, low, strict=True)
    )
    return Plane((left, right), pixel_mm)
