"""What maps of the anatomy say at every pixel: how high they are there, and how they slope.

Directions are those of the cortex. The flat map of the right hemisphere is the mirror image of the
left one's, so that "outwards", away from the middle of the map, means the same in both.
"""

from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

# Standard deviations of the neighbourhoods, of the map's height: 1, 2 and 4 pixels of 64.
SCALES = (1 / 64, 1 / 32, 1 / 16)
_FLAT = 1e-3  # of a neighbourhood's own spread, below which it shows no slope


def outwards(cortex: Float[ndarray, "2 h w"]) -> Float[ndarray, "h w"]:
    """-1 on the left hemisphere, whose outside is on the left, 1 on the right one; 0 elsewhere."""
    return cortex[1] - cortex[0]


def features(
    maps: Float[ndarray, "k h w"], cortex: Float[ndarray, "2 h w"]
) -> Float[ndarray, "p f"]:
    """Of the p pixels of cortex, row by row: height, slope going down, slope going outwards.

    maps: in any units; each becomes z-scores over the cortex first, so that only its pattern
        counts. The features are those of the plane that lies nearest to a map around the pixel,
        for every map and every one of `SCALES`. Slopes are per standard deviation of the
        neighbourhood, which never reaches over to the other hemisphere.
    """
    mask = np.any(cortex, axis=0)
    scaled = np.stack([_z_scores(one, mask) for one in maps])
    sign = outwards(cortex)[mask]
    found = []
    for scale in SCALES:
        planes = sum(_planes(scaled, side, sigma=scale * cortex.shape[1]) for side in cortex)
        height, down, across = np.asarray(planes)[:, :, mask]
        found += [height, down, across * sign]
    return np.concatenate(found).T


def _z_scores(values: Float[ndarray, "h w"], mask: Any) -> Float[ndarray, "h w"]:
    spread = values[mask].std()
    return np.where(mask, values - values[mask].mean(), 0) / (spread if spread > 0 else 1)


def _planes(
    maps: Float[ndarray, "k h w"], side: Float[ndarray, "h w"], *, sigma: float
) -> Float[ndarray, "3 k h w"]:
    """Height and slopes (per sigma) of the planes nearest to the maps around each pixel, zero off
    the hemisphere; weighted by a Gaussian."""
    rows, columns = (_moments(length, sigma) for length in side.shape)

    def sums(values: Float[ndarray, "*k h w"], down: int, across: int) -> Float[ndarray, "*k h w"]:
        return rows[down] @ values @ columns[across].T

    orders = ((0, 0), (1, 0), (0, 1))
    gram = [[sums(side, i + k, j + m) for k, m in orders] for i, j in orders]
    gram = np.moveaxis(np.array(gram), (0, 1), (-2, -1))  # h w 3 3
    # Where a neighbourhood is no wider than a line or a point, there is no slope to tell.
    gram = gram + _FLAT * gram[..., :1, :1] * np.diag([0, 1, 1])
    wanted = np.stack([sums(maps * side, i, j) for i, j in orders], axis=-1)  # k h w 3
    here = side.astype(bool)
    found = np.zeros((3, *maps.shape))
    solved = np.linalg.solve(gram[here], wanted[:, here].transpose(1, 2, 0))  # p 3 k
    found[:, :, here] = solved.transpose(1, 2, 0)
    return found


def _moments(length: int, sigma: float) -> Float[ndarray, "3 n n"]:
    """Gaussian weights from each place to all others, times their distance to the power 0, 1, 2."""
    away = (np.arange(length)[None] - np.arange(length)[:, None]) / sigma
    weight = np.exp(-(away**2) / 2)
    return np.stack([weight * away**power for power in range(3)])
