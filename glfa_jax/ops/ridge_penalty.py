"""Which penalty a ridge regression wants, found on its own samples alone.

One half of the samples is fitted and the other predicted, then the other way round; the penalty of
the best predictions is taken. It is relative: alpha = share × the mean square of a feature × the
number of samples, so that a share found with half of the samples holds for all of them, and in any
unit.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from glfa_jax.errors import InputError
from glfa_jax.ops.ridge import Ridge

# Largest first: of equally good ones the largest is taken.
SHARES: tuple[float, ...] = tuple(
    float(f"{10**exponent:.3g}") for exponent in np.arange(1, -6.1, -0.5)
)


# Targets by which the choice is made; all of them would take gigabytes at full size.
MOST_TARGETS = 4096


class Choice(NamedTuple):
    """The best share of `SHARES`, and the mean correlation of predictions with each of them."""

    share: float
    correlations: dict[float, float]


class Halves:
    """Takes in the samples of two halves; memory does not depend on their number.

    Of more than `MOST_TARGETS` targets, so many are looked at, evenly spaced.
    """

    def __init__(self, *, features: int, targets: int):
        looked_at = np.linspace(0, targets - 1, min(targets, MOST_TARGETS))
        self._columns = np.unique(looked_at.round().astype(int))
        self._sums = [Ridge(features=features, targets=len(self._columns)) for _ in range(2)]

    def add(
        self,
        features: Float[ndarray, "b p"],
        *,
        targets: Float[ndarray, "b q"],
        second: Bool[ndarray, " b"],
    ) -> None:
        """second: which samples belong to the second half."""
        for half, mine in zip(self._sums, (~second, second), strict=True):
            half.add(features[mine], targets=targets[mine][:, self._columns])

    def choose(self) -> Choice:
        """The share with which each half predicts the other best.

        Predictions are judged by Pearson correlation over the samples of a half, mean over targets
        that vary and over both halves: LEA rescales its predictions, so that their size does not
        count. Raises InputError where a half has no samples, or nothing varies in one.
        """
        found = {share: self._correlation(share) for share in SHARES}
        known = {share: value for share, value in found.items() if np.isfinite(value)}
        if not known:
            counts = " and ".join(str(half.count) for half in self._sums)
            raise InputError(
                "ridge regression: no penalty can be chosen, for nothing varies in one half of "
                f"the samples ({counts}); give alpha as a number"
            )
        return Choice(max(known, key=lambda share: known[share]), known)

    def _correlation(self, share: float) -> float:
        means = []
        for fitted, checked in (self._sums, self._sums[::-1]):
            weights = fitted.solve(alpha=alpha_of(share, fitted)).weights
            found = checked.correlations(weights)
            varies = np.isfinite(found)
            means.append(found[varies].mean() if varies.any() else np.nan)
        return float(np.mean(means))


def alpha_of(share: float, samples: Ridge) -> float:
    """What `Ridge.solve` takes."""
    return share * samples.mean_square * samples.count
