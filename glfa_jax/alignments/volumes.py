"""Windows of maps as volumes, one after the other, and whether anything can be fitted to them."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from glfa_jax.errors import InputError

# A standard deviation below this is what rounding leaves of none, in z-scores.
_FLAT = 1e-5


def volumes_of(
    maps: Float[ndarray, "n w height width"], *, what: str = "maps"
) -> Float[ndarray, "t height width"]:
    """All volumes of all windows, in their order, in float32; a view where they are that.

    Raises InputError, which says `what`, for a single volume and where no pixel varies.
    """
    volumes = np.asarray(maps, np.float32).reshape(-1, *maps.shape[-2:])
    if len(volumes) < 2:
        raise InputError(f"{what}: hold {len(volumes)} volumes in all, must be at least 2")
    if not (amplitude_of(volumes) > 0).any():
        raise InputError(f"{what}: no pixel varies over their {len(volumes)} volumes, some must")
    return volumes


def amplitude_of(volumes: Float[ndarray, "t ..."]) -> Float[ndarray, "..."]:
    """Standard deviation of every pixel over time; exactly 0 where rounding alone varies."""
    amplitude = volumes.std(axis=0)
    return np.where(amplitude > _FLAT, amplitude, 0)


def standardised(volumes: Float[ndarray, "t ..."]) -> Float[ndarray, "t ..."]:
    """Every pixel with mean 0 and variance 1 over time; 0 where it does not vary."""
    amplitude = amplitude_of(volumes)
    centred = volumes - volumes.mean(axis=0)
    centred /= np.where(amplitude > 0, amplitude, np.inf)
    return centred
