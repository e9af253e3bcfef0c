"""Ridge regression in closed form, on the host in float64, over batches that come one by one."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from glfa_jax.errors import InputError

# Columns of the targets worked on at once, which bounds what is held beside the sums.
_BLOCK = 4096
# A variance below this share of the mean square is what rounding leaves of none.
_NO_VARIANCE = 1e-12


class RidgeFit(NamedTuple):
    """Weights without intercept, and the statistics of what they were fitted on.

    A standard deviation is exactly 0 where values vary by rounding alone.
    """

    weights: Float[ndarray, "p q"]
    features_mean: Float[ndarray, " p"]
    predictions_std: Float[ndarray, " q"]
    targets_mean: Float[ndarray, " q"]
    targets_std: Float[ndarray, " q"]


class Ridge:
    """Sums over samples, of which memory does not depend on their number: X'X, X'Y and moments."""

    def __init__(self, *, features: int, targets: int):
        self._count = 0
        self._xx = np.zeros((features, features))
        self._xy = np.zeros((features, targets))
        self._x = np.zeros(features)
        self._y, self._yy = np.zeros(targets), np.zeros(targets)
        self._spectrum: Any = None  # of X'X, which every penalty needs

    def add(self, features: Float[ndarray, "b p"], *, targets: Float[ndarray, "b q"]) -> None:
        """Takes in more samples. Raises InputError where a value is not finite."""
        for name, values in (("features", features), ("targets", targets)):
            wrong = np.flatnonzero(~np.isfinite(values).all(axis=1))
            if len(wrong):
                raise InputError(
                    f"ridge regression: the {name} of sample {self._count + wrong[0]} hold a value "
                    "that is not finite; all must be numbers"
                )
        x, y = np.asarray(features, np.float64), np.asarray(targets, np.float64)
        self._count += len(x)
        self._spectrum = None
        self._xx += x.T @ x
        for block in self._blocks():
            self._xy[:, block] += x.T @ y[:, block]
        self._x += x.sum(axis=0)
        self._y += y.sum(axis=0)
        self._yy += np.square(y).sum(axis=0)

    def solve(self, *, alpha: float) -> RidgeFit:
        """Minimises |Y - XW|² + alpha |W|². Raises InputError where no one W does."""
        self._validate_samples()
        if self._spectrum is None:
            self._spectrum = np.linalg.eigh(self._xx)
        values, vectors = self._spectrum
        values = np.maximum(values, 0)
        if values[0] + alpha <= len(values) * np.finfo(float).eps * values[-1]:
            raise InputError(
                f"ridge regression: {self._count} samples do not determine the weights of "
                f"{len(values)} features with alpha {alpha:g}; alpha must be larger"
            )
        mean = self._x / self._count
        weights, square = np.empty_like(self._xy), np.empty_like(self._y)
        for block in self._blocks():
            turned = vectors.T @ self._xy[:, block] / (values + alpha)[:, None]
            weights[:, block] = vectors @ turned
            square[block] = values @ np.square(turned) / self._count
        targets_mean = self._y / self._count
        return RidgeFit(
            weights,
            features_mean=mean,
            predictions_std=_std(mean @ weights, square),
            targets_mean=targets_mean,
            targets_std=_std(targets_mean, self._yy / self._count),
        )

    def correlations(self, weights: Float[ndarray, "p q"]) -> Float[ndarray, " q"]:
        """Pearson correlation of the predictions XW of these samples with their targets.

        weights: of a fit to other samples. Not a number where a target or its prediction does not
        vary.
        """
        self._validate_samples()
        found = np.empty_like(self._y)
        for block in self._blocks():
            w, mean = weights[:, block], self._y[block] / self._count
            predicted = self._x @ w / self._count
            spread = _std(predicted, (w * (self._xx @ w)).sum(axis=0) / self._count)
            spread *= _std(mean, self._yy[block] / self._count)
            shared = (w * self._xy[:, block]).sum(axis=0) / self._count - predicted * mean
            found[block] = np.divide(
                shared, spread, out=np.full_like(shared, np.nan), where=spread > 0
            )
        return found

    @property
    def count(self) -> int:
        """Samples so far."""
        return self._count

    @property
    def mean_square(self) -> float:
        """Of a feature, over samples and features."""
        return float(np.trace(self._xx) / self._xx.shape[0] / self._count)

    def _validate_samples(self) -> None:
        if not self._count:
            raise InputError("ridge regression: there are no samples, must be at least one")

    def _blocks(self) -> Iterator[slice]:
        for start in range(0, len(self._y), _BLOCK):
            yield slice(start, start + _BLOCK)


def _std(mean: Float[ndarray, " q"], square: Float[ndarray, " q"]) -> Float[ndarray, " q"]:
    variance = square - np.square(mean)
    return np.sqrt(np.where(variance > _NO_VARIANCE * square, variance, 0))


def rescaled(fit: RidgeFit) -> Float[ndarray, "p q"]:
    """W such that (x - features_mean) W + targets_mean has the mean and deviation of the targets.

    That is x times `fit.weights`, standardised and mapped to the targets' statistics, both over the
    samples of the fit. What cannot be predicted at all becomes the targets' mean.
    """
    scale = np.divide(
        fit.targets_std,
        fit.predictions_std,
        out=np.zeros_like(fit.targets_std),
        where=fit.predictions_std > 0,
    )
    return fit.weights * scale
