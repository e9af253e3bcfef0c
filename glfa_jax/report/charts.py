"""Dot plots: values with intervals and a mark, one a row, on a common scale."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

from glfa_jax.report.words import value_text


@dataclass(frozen=True)
class Point:
    """One row. note: beside the name, in smaller type. low, high: the 95 % interval. mark: where
    an upright stroke stands, such as chance. filled: whether the dot is."""

    name: str
    value: float
    filled: bool
    note: str = ""
    low: float | None = None
    high: float | None = None
    mark: float | None = None

    @property
    def numbers(self) -> list[float]:
        """All that is drawn."""
        return [v for v in (self.value, self.low, self.high, self.mark) if v is not None]


@dataclass(frozen=True)
class Chart:
    """title, mark: what is measured and what the strokes are, for those who do not see the plot.
    text: a value as it is written."""

    points: list[Point]
    span: tuple[float, float]
    title: str = ""
    mark: str = ""
    text: Callable[[float], str] = value_text

    @property
    def ticks(self) -> list[float]:
        low, high = self.span
        inside = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        return [tick for tick in inside if low - 1e-9 <= tick <= high + 1e-9]

    def x(self, value: float) -> str:
        """A place on the scale; a margin of 2 % on both sides keeps dots at the ends whole."""
        low, high = self.span
        return f"{2 + 96 * (min(max(value, low), high) - low) / (high - low):.2f}%"


def floor_of(values: Iterable[float]) -> float:
    """Where a scale of shares or correlations begins: 0, or lower in steps of 0.2, -1 at least."""
    return min(0.0, math.floor(max(-1.0, min(values)) * 5) / 5)
