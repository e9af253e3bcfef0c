"""Pearson correlation over time at every pixel, of series too long for the memory."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray


class RunningCorrelation:
    """Of two series of z-scored pixels, in one pass.

    volumes: how many were added.
    """

    def __init__(self, pixels: int):
        self.volumes = 0
        self._first, self._second = np.zeros((2, 2, pixels))  # sums of values, of squares
        self._product = np.zeros(pixels)

    def add(self, first: Float[ndarray, "*time p"], second: Float[ndarray, "*time p"]) -> None:
        first, second = (values.reshape(-1, values.shape[-1]) for values in (first, second))
        self.volumes += len(first)
        for sums, values in ((self._first, first), (self._second, second)):
            sums[0] += values.sum(axis=0, dtype=np.float64)
            sums[1] += np.einsum("tp,tp->p", values, values, dtype=np.float64)
        self._product += np.einsum("tp,tp->p", first, second, dtype=np.float64)

    def result(self) -> Float[ndarray, " p"]:
        """NaN where a series does not vary, and everywhere where nothing was added."""
        count = max(self.volumes, 1)
        spreads = [squares - total**2 / count for total, squares in (self._first, self._second)]
        shared = self._product - self._first[0] * self._second[0] / count
        # Less than rounding of float16 z-scores makes: the pixel does not vary.
        least = 1e-6 * count
        varies = (spreads[0] > least) & (spreads[1] > least)
        scale = np.sqrt(np.where(varies, spreads[0] * spreads[1], 1))
        return np.where(varies, np.clip(shared / scale, -1, 1), np.nan)
