"""The pixels of one run to z-scores, in place and a few at a time."""

from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from glfa_jax.data.attributes import RunQuality
from glfa_jax.data.cleaning.measures import Measures
from glfa_jax.data.cleaning.temporal import Cleaner

COLUMNS = 2048  # pixels taken to float64 at a time
NOTHING = 1e-6  # of a pixel's spread; what cleaning leaves below is rounding


class Scores:
    """Makes z-scores (ddof 1) of `blocks`, over the volumes before the tail that are not censored;
    a constant pixel becomes zero.

    silent: constant pixels; peak: largest |z| before the tail.
    """

    def __init__(
        self,
        blocks: Sequence[Float[ndarray, "time p"]],
        *,
        tail: int,
        seconds: float,
        cleaner: Cleaner | None,
    ):
        volumes, pixels = sum(map(len, blocks)), blocks[0].shape[1]
        self._kept, self._cleaner = volumes - tail, cleaner
        self._mean, self._spread, self._cleaned_spread = np.zeros((3, pixels))
        self._course, self._cleaned_course = np.zeros((2, volumes))
        self._before = Measures(self._kept, pixels, seconds=seconds)
        self._after = Measures(self._kept, pixels, seconds=seconds)
        self._displacement: ndarray | None = None
        self.peak, self.silent = 0.0, 0
        for start in range(0, pixels, COLUMNS):
            part = slice(start, start + COLUMNS)
            series = np.concatenate([block[:, part] for block in blocks]).astype(np.float64)
            scores = self._scores(series, part)
            self.peak = max(self.peak, float(np.abs(scores[: self._kept]).max()))
            for block, own in zip(blocks, _split(scores, blocks), strict=True):
                block[:, part] = own  # in place: the run is held once

    def _scores(self, series: Float[ndarray, "time p"], part: slice) -> Float[ndarray, "time p"]:
        kept, pixels = self._kept, len(self._mean)
        self._course += series.sum(axis=1) / pixels
        constant = np.ptp(series[:kept], axis=0) == 0
        self._mean[part] = series[:kept].mean(axis=0)
        series -= self._mean[part]
        spread = np.where(constant, 0, series[:kept].std(axis=0, ddof=1))
        self._spread[part] = spread
        if self._cleaner is not None:
            before = series[:kept] / np.where(constant, 1, spread)
            before[:, constant] = 0
            self._before.add(part.start, before)
            series = self._cleaner(series)
            counted = series[:kept][self._cleaner.kept[:kept]]
            series -= counted.mean(axis=0)
            self._cleaned_course += series.sum(axis=1) / pixels
            cleaned = counted.std(axis=0, ddof=1)
            constant |= cleaned <= NOTHING * spread
            spread = np.where(constant, 0, cleaned)
            self._cleaned_spread[part] = spread
        series /= np.where(constant, 1, spread)
        series[:, constant] = 0
        self.silent += int(constant.sum())
        (self._after if self._cleaner else self._before).add(part.start, series[:kept])
        return series

    def add_motion(self, displacement: Float[ndarray, " time"]) -> None:
        """Of the head, mm, of every volume; NaN where unknown."""
        self._displacement = displacement[: self._kept]

    @property
    def arrays(self) -> dict[str, Float[ndarray, "..."]]:
        """What is kept to be looked at, by name."""
        kept, level = self._kept, self._course[: self._kept].mean()
        course = 100 * (self._course[:kept] / level - 1) if level > 0 else np.zeros(kept)
        carpet = [self._before.carpet]
        found = {"mean": self._mean, "tsnr": self._ratio(self._spread), "course": course}
        if self._cleaner is not None:
            carpet.append(self._after.carpet)
            cleaned = self._cleaned_course[:kept]
            found["course_cleaned"] = 100 * cleaned / level if level > 0 else np.zeros(kept)
            found["tsnr_cleaned"] = self._ratio(self._cleaned_spread)
        if self._displacement is not None:
            found["displacement"] = self._displacement
        return found | {"carpet": np.stack(carpet)}

    @property
    def quality(self) -> RunQuality:
        found: RunQuality = {
            "drift": self._before.drift,
            "tsnr": float(np.median(self._ratio(self._spread))),
        }
        counted = np.ones(self._kept, bool)
        if self._cleaner is not None:
            found["drift_cleaned"] = self._after.drift
            found["tsnr_cleaned"] = float(np.median(self._ratio(self._cleaned_spread)))
            found["censored"] = int((~self._cleaner.kept[: self._kept]).sum())
            counted = self._cleaner.kept[: self._kept]
        moved = self._displacement
        if moved is not None and np.isfinite(moved).any():
            found["displacement"] = float(np.nanmean(moved))
            found["motion"] = self._before.motion(moved, kept=np.ones_like(counted))
            if self._cleaner is not None:
                found["motion_cleaned"] = self._after.motion(moved, kept=counted)
        return cast(RunQuality, {k: v for k, v in found.items() if np.isfinite(cast(float, v))})

    def _ratio(self, spread: Float[ndarray, " p"]) -> Float[ndarray, " p"]:
        return np.divide(self._mean, spread, out=np.zeros(len(spread)), where=spread > 0)


def _split(series: ndarray, blocks: Sequence[ndarray]) -> Iterator[ndarray]:
    start = 0
    for block in blocks:
        yield series[start : start + len(block)]
        start += len(block)
