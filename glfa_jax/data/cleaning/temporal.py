"""The cleaning of one run in time: a matrix that is the same for every pixel.

Everything but despiking is linear, so it is asked of nilearn once, for the unit impulses of each
volume, and then multiplied with a few thousand pixels at a time. It commutes with the weights that
make pixels of vertices.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.interpolate import CubicSpline

from glfa_jax import config
from glfa_jax.data import DataError
from glfa_jax.files import reason

PASSES = 3  # of despiking; each finds the drift anew, without the spikes that were found before
DRIFT_ORDER = 4  # of the polynomial that stands for drift where no other is named
ROBUST = 1.4826  # the standard deviation of normal values, over their median absolute deviation
LEAST_LEFT = 2.0  # degrees of freedom
FEW_LEFT = 0.5  # share of the degrees of freedom below which it is said


def polynomials(volumes: int, order: int) -> Float[ndarray, "time order"]:
    """Legendre's, from the first order on."""
    place = np.linspace(-1, 1, volumes)
    return np.polynomial.legendre.legvander(place, order)[:, 1:]


def cosines(volumes: int, *, seconds: float, longest: float) -> Float[ndarray, "time n"]:
    """The discrete cosines whose period is `longest` or more; seconds: of a volume."""
    count = int(np.floor(2 * volumes * seconds / longest))
    steps = np.arange(1, count + 1)
    return np.cos(np.pi / volumes * (np.arange(volumes)[:, None] + 0.5) * steps)


class Cleaner:
    """Made of what one run holds besides its series.

    operator: (time, time), what becomes of a series; censored volumes do not enter it, and are
        interpolated in what comes out.
    kept: volumes that are not censored.
    notes: what deserves a look, a sentence each.
    """

    def __init__(
        self,
        cleaning: config.Cleaning,
        *,
        scan: Path,
        seconds: float,
        regressors: Float[ndarray, "time r"],
        kept: Bool[ndarray, " time"],
    ):
        self.cleaning, self.scan, self.seconds, self.kept = cleaning, scan, seconds, kept
        volumes = len(kept)
        self._check(volumes)
        self._drift = self._basis(volumes)
        self.operator = self._operator(regressors)
        self._baseline = self._long_waves()
        left = float(np.trace(self.operator[np.ix_(kept, kept)]))
        if left < LEAST_LEFT:
            raise DataError(
                f"{scan}: data.clean leaves nothing of its {kept.sum()} volumes; take out less"
            )
        self.notes: Sequence[str] = ()
        if left < FEW_LEFT * kept.sum():
            self.notes = [
                f"{scan}: data.clean leaves {left:.0f} of {kept.sum()} degrees of freedom"
            ]

    def __call__(self, series: Float[ndarray, "time p"]) -> Float[ndarray, "time p"]:
        if self.cleaning.despike is not None:
            series = self._despiked(series, self.cleaning.despike)
        return self.operator @ series

    def _check(self, volumes: int) -> None:
        order = self.cleaning.polynomial
        if order is not None and order > volumes - 3:
            raise DataError(
                f"{self.scan}: {volumes} volumes, too few for data.clean.polynomial of order "
                f"{order}"
            )
        longest = self.cleaning.cosine_seconds
        if longest is not None and longest <= 2 * self.seconds:
            raise DataError(
                f"{self.scan}: data.clean.cosine_seconds: must be more than two volumes, "
                f"{2 * self.seconds:g} s, is {longest:g} s"
            )
        for name in ("high_pass_hz", "low_pass_hz"):
            frequency, nyquist = getattr(self.cleaning, name), 0.5 / self.seconds
            if frequency is not None and frequency >= nyquist:
                raise DataError(
                    f"{self.scan}: data.clean.{name}: must be below half the rate of volumes, "
                    f"{nyquist:g} Hz at a TR of {self.seconds:g} s, is {frequency:g} Hz"
                )

    def _basis(self, volumes: int) -> Float[ndarray, "time d"]:
        parts = [np.ones((volumes, 1))]
        if self.cleaning.polynomial is not None:
            parts.append(polynomials(volumes, self.cleaning.polynomial))
        if self.cleaning.cosine_seconds is not None:
            longest = self.cleaning.cosine_seconds
            parts.append(cosines(volumes, seconds=self.seconds, longest=longest))
        return np.concatenate(parts, axis=1)

    def _operator(self, regressors: Float[ndarray, "time r"]) -> Float[ndarray, "time time"]:
        """As nilearn has the order: censored volumes are interpolated where series are filtered,
        drift is taken out, what is left is filtered, and only then are they left out."""
        first, last = np.flatnonzero(self.kept)[[0, -1]]
        inner = slice(first, last + 1)
        kept = self.kept[inner]
        # nilearn 0.14 interpolates no censored volume whose counterpart, counted from the other
        # end, is censored as well, and loses step where both ends are: done before it is called.
        splines = _splines(kept)
        counts = np.ones_like(kept) if self._filters else kept
        prepared = _drift_free(self._drift[inner], counts) @ splines
        impulses = np.eye(len(self.kept))[inner]
        cleaned = self._by_nilearn(prepared @ impulses, prepared @ regressors[inner], kept)
        return _lines(self.kept) @ cleaned

    @property
    def _filters(self) -> bool:
        return self.cleaning.low_pass_hz is not None or self.cleaning.high_pass_hz is not None

    def _by_nilearn(
        self,
        series: Float[ndarray, "time p"],
        confounds: Float[ndarray, "time r"],
        kept: Bool[ndarray, " time"],
    ) -> Float[ndarray, "kept p"]:
        from nilearn import signal  # takes a second to import

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return signal.clean(
                    series,
                    detrend=False,
                    standardize=None,
                    sample_mask=None if kept.all() else np.flatnonzero(kept),
                    confounds=confounds if confounds.shape[1] else None,
                    filter="butterworth" if self._filters else False,
                    low_pass=self.cleaning.low_pass_hz,
                    high_pass=self.cleaning.high_pass_hz,
                    t_r=self.seconds,
                )
            except ValueError as error:
                raise DataError(
                    f"{self.scan}: {len(kept)} volumes cannot be cleaned as data.clean says "
                    f"({reason(error)})"
                ) from None

    def _despiked(self, series: Float[ndarray, "time p"], limit: float) -> ndarray:
        """Values far from the pixel's drift, measured robustly, drawn back to the limit."""
        drift, fit = self._baseline
        for _ in range(PASSES):
            smooth = drift @ (fit @ series)
            rest = series - smooth
            sizes = np.ascontiguousarray(np.abs(rest[self.kept]).T)  # twice as fast as by columns
            most = limit * ROBUST * np.median(sizes, axis=1)
            most = np.where(most > 0, most, np.inf)
            series = smooth + np.clip(rest, -most, most)
        return series

    def _long_waves(self) -> tuple[Float[ndarray, "time d"], Float[ndarray, "d time"]]:
        """The drift that spikes stick out of, and its fit."""
        drift, volumes = self._drift, len(self.kept)
        if drift.shape[1] == 1:
            more = polynomials(volumes, min(DRIFT_ORDER, max(volumes - 3, 1)))
            drift = np.concatenate([drift, more], axis=1)
        return drift, _fit(drift, self.kept)


def _fit(drift: Float[ndarray, "time d"], kept: Bool[ndarray, " time"]) -> Float[ndarray, "d time"]:
    """To the volumes that are kept, by least squares."""
    fit = np.zeros(drift.shape[::-1])
    fit[:, kept] = np.linalg.pinv(drift[kept])
    return fit


def _drift_free(
    drift: Float[ndarray, "time d"], kept: Bool[ndarray, " time"]
) -> Float[ndarray, "time time"]:
    """Takes away the drift, as fitted to the volumes that are kept, from all volumes."""
    return np.eye(len(drift)) - drift @ _fit(drift, kept)


def _splines(kept: Bool[ndarray, " time"]) -> Float[ndarray, "time time"]:
    """Gives censored volumes the values of cubic splines through the others; both ends are kept."""
    matrix = np.eye(len(kept))
    if not kept.all():
        places = np.flatnonzero(kept)
        matrix[:, ~kept] = 0
        through = CubicSpline(places, np.eye(len(places)))
        matrix[np.ix_(~kept, kept)] = through(np.flatnonzero(~kept))
    return matrix


def _lines(kept: Bool[ndarray, " time"]) -> Float[ndarray, "time kept"]:
    """Gives censored volumes what lies on straight lines between the others, which no noise makes
    overshoot as splines do; at the ends the nearest."""
    places, every = np.flatnonzero(kept), np.arange(len(kept))
    return np.stack([np.interp(every, places, one) for one in np.eye(len(places))], axis=1)
