"""Curves and arrows as inline SVG that follows the page's colours."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from glfa_jax.errors import spell_hidden
from glfa_jax.report.html import Markup
from glfa_jax.report.svg import ACCENT, CORTEX, EXTRA, INK, MUTED, RULE, SULCI, inline

# Terms of the stages' losses as the logs name them, beside every key that contains "loss".
LOSS_TERMS = ("diffusion", "regularisation", "alignment", "image", "text")
# Beyond, matplotlib's own arithmetic overflows.
DRAWABLE = 1e100
# Beyond so many points a course is drawn as the band between its extremes.
_MOST_POINTS = 1500
# Arrows across a flat map: as many as can be told apart.
_ACROSS = 18


# --- loss curves --------------------------------------------------------------------------------


def smooth(values: np.ndarray, *, window: int) -> np.ndarray:
    """Centred moving average that shortens at the ends; values that are not finite do not count."""
    finite = np.isfinite(values)
    kernel = np.ones(window)
    count = np.convolve(finite, kernel, mode="same")
    total = np.convolve(np.where(finite, values, 0.0), kernel, mode="same")
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def smoothing_window(points: int) -> int:
    """About a thirtieth of the curve, odd, shorter than the curve."""
    return max(1, points // 30) | 1


def loss_terms(entries: Sequence[dict[str, float]]) -> list[str]:
    """What is drawn of a log: the loss, and the first of the terms that it is made of."""
    terms = [k for k in entries[-1] if k in LOSS_TERMS or ("loss" in k and k != "loss")]
    return ["loss", *terms[: len(EXTRA)]]


def loss_curve(entries: Sequence[dict[str, float]], *, salt: str, label: str) -> Markup:
    """Inline SVG: `loss` raw and smoothed, the terms it is made of smoothed only.

    Values beyond DRAWABLE are left out. The vertical axis is logarithmic where every value is
    positive and they span a factor of 5.
    """
    loss, *terms = loss_terms(entries)
    step = np.array([entry["step"] for entry in entries], float)
    window = smoothing_window(len(step))
    series = {key: np.array([_drawable(e.get(key)) for e in entries]) for key in (loss, *terms)}
    values = np.concatenate(list(series.values()))
    values = values[np.isfinite(values)]

    def draw(axes: Axes) -> None:
        axes.plot(step, series[loss], color=MUTED, alpha=0.4, linewidth=0.7)
        for key, colour in zip(terms, EXTRA, strict=False):
            curve = smooth(series[key], window=window)
            axes.plot(step, curve, color=colour, linewidth=1.2, label=_label(key))
        axes.plot(
            step,
            smooth(series[loss], window=window),
            color=ACCENT,
            linewidth=1.8,
            marker="o" if len(step) == 1 else "",
            label=loss,
        )
        if values.size and values.min() > 1 / DRAWABLE and values.max() / values.min() > 5:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
        axes.set_xlabel("step", color=MUTED)
        axes.grid(True, color=RULE, linewidth=0.5)
        if terms:
            axes.legend(frameon=False, fontsize=8, labelcolor=INK, handlelength=1.4)

    return inline(draw, size=(4.4, 2.8), salt=salt, label=label)


def _label(key: str) -> str:
    return spell_hidden(key.replace("_", " ")).replace("$", r"\$")  # no formula


def _drawable(value: float | None) -> float:
    return float("nan") if value is None or abs(value) > DRAWABLE else value


# --- time courses -------------------------------------------------------------------------------


def time_course(
    runs: Sequence[np.ndarray],
    *,
    marked: Sequence[bool],
    step: float,
    salt: str,
    label: str,
    unit: str = "%",
) -> Markup:
    """Inline SVG: runs one after another, values over minutes; marked runs in another colour.

    step: seconds between two values; unit: of the values.
    """
    size = max(1, -(-sum(map(len, runs)) // _MOST_POINTS))

    def draw(axes: Axes) -> None:
        begin = 0
        for values, mark in zip(runs, marked, strict=True):
            colour = EXTRA[2] if mark else ACCENT
            bins = [values[i : i + size] for i in range(0, len(values), size)]
            minutes = (begin + size * np.arange(len(bins))) * step / 60
            if size == 1:
                axes.plot(minutes, values, color=colour, linewidth=0.9)
            else:
                low, high = [b.min() for b in bins], [b.max() for b in bins]
                axes.fill_between(minutes, low, high, color=colour, linewidth=0.4)
            begin += len(values)
            axes.axvline(begin * step / 60, color=RULE, linewidth=0.7)
        axes.set_xlim(0, max(begin * step / 60, 1e-9))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=10))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.set_xlabel("minutes", color=MUTED)
        axes.set_ylabel(unit, color=MUTED)

    return inline(draw, size=(12, 1.9), salt=salt, label=label)


# --- arrows on the flat map ---------------------------------------------------------------------


@dataclass(frozen=True)
class Arrows:
    """How fields are drawn that are to be compared: one arrow a square of `spacing` pixels, of its
    mean times `magnification`. longest: of all but a few, in pixels."""

    spacing: int
    magnification: float
    longest: float


def grid_of(
    fields: Sequence[Float[np.ndarray, "h w 2"]], *, mask: Bool[np.ndarray, "h w"]
) -> Arrows:
    """About `_ACROSS` arrows across the cortex, to the scale of the map unless that makes the
    longest much longer or shorter than a square and a half."""
    columns = np.flatnonzero(mask.any(0))
    spacing = max(1, round((columns[-1] - columns[0] + 1) / _ACROSS))
    lengths = [np.linalg.norm(_cells(f, mask, spacing)[1], axis=1) for f in fields]
    longest = float(np.percentile(np.concatenate(lengths), 98)) or 1.0
    magnification = 1.5 * spacing / longest
    return Arrows(spacing, 1.0 if 0.6 < magnification < 1.6 else magnification, longest)


def arrows(
    field: Float[np.ndarray, "h w 2"],
    *,
    mask: Bool[np.ndarray, "h w"],
    curvature: Float[np.ndarray, "h w"] | None,
    scale: Arrows,
    pixel_size: float,
    unit: str,
    salt: str,
    label: str,
) -> Markup:
    """Inline SVG: the cortex, its sulci darker, and arrows of rows and columns in pixels.

    curvature: positive in sulci. pixel_size: of a pixel, in `unit`.
    """
    (top, left), (bottom, right) = (np.argwhere(mask).min(0), np.argwhere(mask).max(0))
    feet, means = _cells(field, mask, scale.spacing)
    stands_for = _round_length(scale.longest * pixel_size)
    key = stands_for / pixel_size * scale.magnification  # drawn so long
    room = 0.06 * (bottom - top + 1)  # below the cortex, for the scale

    def draw(axes: Axes) -> None:
        axes.contourf(np.pad(mask, 1), levels=[0.5, 2], colors=[CORTEX], extent=_extent(mask))
        if curvature is not None:
            sulci = np.pad(np.where(mask, curvature, -1), 1, constant_values=-1)
            levels = [0, max(1e-9, float(sulci.max()) + 1)]
            axes.contourf(sulci, levels=levels, colors=[SULCI], extent=_extent(mask))
        options: Any = {"angles": "xy", "scale_units": "xy", "scale": 1, "color": INK}
        options |= {"units": "width", "width": 0.0028, "headwidth": 4, "headlength": 5}
        options |= {"headaxislength": 4.2, "minlength": 0.6, "clip_on": False}
        drawn = means * scale.magnification
        shown = axes.quiver(feet[:, 1], feet[:, 0], drawn[:, 1], drawn[:, 0], **options)
        shown.set_in_layout(False)  # at the rim they reach beyond the axes
        axes.quiver([left], [bottom + room], [key], [0], **options | {"color": ACCENT})
        axes.text(left + key + 0.01 * (right - left), bottom + room, f"{stands_for:g} {unit}",
                  color=ACCENT, va="center", fontsize=9)  # fmt: skip
        axes.set_xlim(left - 1, right + 1)
        axes.set_ylim(bottom + 1.7 * room, top - 1)
        axes.set_aspect("equal")
        axes.set_xticks([])
        axes.set_yticks([])

    high, wide = bottom - top + 2 + 1.7 * room, right - left + 2
    return inline(draw, size=(5.2, 5.2 * high / wide), salt=salt, label=label)


def _extent(mask: np.ndarray) -> tuple[float, float, float, float]:
    """Of an array padded by one pixel on each side: centres of its first and last ones."""
    height, width = mask.shape
    return (-1, width, -1, height)


def _cells(
    field: Float[np.ndarray, "h w 2"], mask: Bool[np.ndarray, "h w"], spacing: int
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n 2"]]:
    """Centres (row, column) and means of the squares of which the cortex fills two fifths.

    A square never mixes hemispheres, which an empty column near the middle divides.
    """
    empty = np.flatnonzero(~mask.any(0))
    middle = mask.shape[1] / 2
    cut = min(empty, key=lambda column: abs(column + 0.5 - middle), default=middle)
    places = np.argwhere(mask)
    square = np.column_stack([places // spacing, places[:, 1] > cut])
    _, number, count = np.unique(square, axis=0, return_inverse=True, return_counts=True)
    values = np.column_stack([places, field[mask]])
    sums = np.stack([np.bincount(number.ravel(), column) for column in values.T], axis=1)
    means = (sums / count[:, None])[count >= 0.4 * spacing**2]
    return means[:, :2], means[:, 2:]


def _round_length(length: float) -> float:
    """1, 2 or 5 times a power of ten, the largest that is no longer."""
    power = 10.0 ** np.floor(np.log10(length))
    return float(max(step for step in (1, 2, 5) if step * power <= length * 1.0001) * power)
