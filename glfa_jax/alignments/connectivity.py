"""Connectivity: what every pixel of the cortex goes along with, whatever was shown."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from glfa_jax.alignments.volumes import standardised

# A parcel at the rim that has less than this share of a whole one is left out as too noisy.
_LEAST = 0.25


def parcels(cortex: Float[ndarray, "2 h w"], *, count: int) -> Float[ndarray, "k h w"]:
    """About `count` squares over both hemispheres: each sums to 1 over its pixels, 0 elsewhere.

    cortex: 1 on the left and on the right hemisphere.
    """
    side = max(1.0, float(np.sqrt(cortex.sum() / count)))
    row, column = (np.indices(cortex.shape[1:]) // side).astype(int)
    number = row * (column.max() + 1) + column
    found = []
    for hemisphere in cortex > 0:
        for one in np.unique(number[hemisphere]):
            pixels = hemisphere & (number == one)
            if pixels.sum() >= _LEAST * side**2:
                found.append(pixels / pixels.sum())
    return np.stack(found).astype(np.float32)


def connectivity(
    volumes: Float[ndarray, "t h w"],
    *,
    warped: Float[ndarray, "t h w"],
    parcels: Float[ndarray, "k h w"],
) -> Float[ndarray, "k h w"]:
    """Correlation over time of every pixel with the parcels' means, less its mean over parcels.

    Linear in `volumes`, so that it can be warped in place of them. volumes: standardised over time.
    warped: the same volumes where the parcels lie.
    """
    means = standardised(warped.reshape(len(warped), -1) @ parcels.reshape(len(parcels), -1).T)
    found = np.tensordot(means.T / len(means), volumes, 1)
    return found - found.mean(0)
