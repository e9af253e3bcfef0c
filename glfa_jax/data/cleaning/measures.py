"""How much a run drifts, and how much of it moves with the head: for people to look at."""

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from glfa_jax.data.cleaning.temporal import DRIFT_ORDER, polynomials
from glfa_jax.data.store import CARPET

FEWEST = 8  # volumes; of fewer, nothing is said
SLOW = 0.01  # Hz; what is slower is called drift


class Measures:
    """Of one run's z-scores, a few thousand pixels at a time.

    carpet: the course of some pixels, evenly spread.
    """

    def __init__(self, volumes: int, pixels: int, *, seconds: float):
        # Of order 4, or of less in runs so short that it would hold waves that are not slow.
        order = min(DRIFT_ORDER, int(2 * volumes * seconds * SLOW))
        drift = polynomials(volumes, order)
        self._drift, _ = np.linalg.qr(drift - drift.mean(axis=0))
        self._share, self._change = np.zeros(pixels), np.zeros(max(volumes - 1, 0))
        self._rows = np.unique(np.linspace(0, pixels - 1, min(CARPET, pixels)).round().astype(int))
        self.carpet = np.zeros((len(self._rows), volumes), np.float16)

    def add(self, start: int, scores: Float[ndarray, "time p"]) -> None:
        """scores: of the pixels from `start` on; of mean zero, and zero where nothing varies."""
        end = start + scores.shape[1]
        power = np.einsum("tp,tp->p", scores, scores)
        found = self._drift.T @ scores
        share = np.einsum("dp,dp->p", found, found) / np.where(power > 0, power, 1)
        self._share[start:end] = np.where(power > 0, share, np.nan)
        steps = np.diff(scores, axis=0)
        self._change += np.einsum("tp,tp->t", steps, steps)
        inside = (self._rows >= start) & (self._rows < end)
        self.carpet[inside] = np.clip(scores[:, self._rows[inside] - start].T, -99, 99)

    @property
    def drift(self) -> float:
        """Share of a pixel's variance that a polynomial of order 4 explains, beyond what it would
        of white noise; the median. NaN of runs that are too short."""
        volumes, order = self._drift.shape
        known = self._share[np.isfinite(self._share)]
        if volumes < FEWEST or not order or not known.size:
            return float("nan")
        return float(1 - (1 - np.median(known)) * (volumes - 1) / (volumes - 1 - order))

    def motion(
        self, displacement: Float[ndarray, " time"], *, kept: Bool[ndarray, " time"]
    ) -> float:
        """Correlation of the head's framewise displacement with how much the maps change from
        volume to volume, over the volumes that are kept; NaN where there is none."""
        change = np.sqrt(self._change)
        used = kept[1:] & kept[:-1] & np.isfinite(displacement[1:])
        moved, change = displacement[1:][used], change[used]
        if used.sum() < FEWEST or not moved.std() or not change.std():
            return float("nan")
        return float(np.corrcoef(moved, change)[0, 1])
