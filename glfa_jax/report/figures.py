"""Curves as inline SVG that follows the page's colours."""

import io
import re
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from glfa_jax.errors import spell_hidden
from glfa_jax.report.html import Markup, escape

# Drawn by matplotlib in colours that no figure would use, then replaced by the page's variables:
# one SVG serves the light and the dark scheme.
_INK, _MUTED, _RULE, _ACCENT = "#010101", "#020202", "#030303", "#040404"
_EXTRA = ("#050505", "#060606", "#070707", "#080808")
_VARIABLES = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _RULE: "var(--rule)",
    _ACCENT: "var(--accent)",
    **{colour: f"var(--extra-{i})" for i, colour in enumerate(_EXTRA)},
}

# Terms of the stages' losses as the logs name them, beside every key that contains "loss".
LOSS_TERMS = ("diffusion", "regularisation", "alignment", "image", "text")
# Beyond, matplotlib's own arithmetic overflows.
DRAWABLE = 1e100
# Beyond so many points a course is drawn as the band between its extremes.
_MOST_POINTS = 1500


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
    return ["loss", *terms[: len(_EXTRA)]]


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
        axes.plot(step, series[loss], color=_MUTED, alpha=0.4, linewidth=0.7)
        for key, colour in zip(terms, _EXTRA, strict=False):
            curve = smooth(series[key], window=window)
            axes.plot(step, curve, color=colour, linewidth=1.2, label=_label(key))
        axes.plot(
            step,
            smooth(series[loss], window=window),
            color=_ACCENT,
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
        axes.set_xlabel("step", color=_MUTED)
        axes.grid(True, color=_RULE, linewidth=0.5)
        if terms:
            axes.legend(frameon=False, fontsize=8, labelcolor=_INK, handlelength=1.4)

    return _inline(draw, size=(4.4, 2.8), salt=salt, label=label)


def _label(key: str) -> str:
    return spell_hidden(key.replace("_", " ")).replace("$", r"\$")  # no formula


def _drawable(value: float | None) -> float:
    return float("nan") if value is None or abs(value) > DRAWABLE else value


# --- time courses -------------------------------------------------------------------------------


def time_course(
    runs: Sequence[np.ndarray], *, marked: Sequence[bool], step: float, salt: str, label: str
) -> Markup:
    """Inline SVG: runs one after another, per cent over minutes; marked runs in another colour.

    step: seconds between two values.
    """
    size = max(1, -(-sum(map(len, runs)) // _MOST_POINTS))

    def draw(axes: Axes) -> None:
        begin = 0
        for values, mark in zip(runs, marked, strict=True):
            colour = _EXTRA[2] if mark else _ACCENT
            bins = [values[i : i + size] for i in range(0, len(values), size)]
            minutes = (begin + size * np.arange(len(bins))) * step / 60
            if size == 1:
                axes.plot(minutes, values, color=colour, linewidth=0.9)
            else:
                low, high = [b.min() for b in bins], [b.max() for b in bins]
                axes.fill_between(minutes, low, high, color=colour, linewidth=0.4)
            begin += len(values)
            axes.axvline(begin * step / 60, color=_RULE, linewidth=0.7)
        axes.set_xlim(0, max(begin * step / 60, 1e-9))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=10))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.set_xlabel("minutes", color=_MUTED)
        axes.set_ylabel("%", color=_MUTED)

    return _inline(draw, size=(12, 1.9), salt=salt, label=label)


# --- matplotlib's SVG as an element of a page ---------------------------------------------------


def _inline(
    draw: Callable[[Axes], None], *, size: tuple[float, float], salt: str, label: str
) -> Markup:
    """What `draw` puts on bare axes, as an HTML element: no prologue, no addresses, no global
    style, and ids that are no other figure's.

    size: in inches. salt: differs between the figures of a page. label: what is to be seen.
    """
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "font.size": 9}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        draw(axes)
        axes.tick_params(which="both", colors=_MUTED, length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for part in (r"<metadata>.*?</metadata>", r"<style.*?</style>", r"<!--.*?-->"):
        svg = re.sub(part, "", svg, flags=re.DOTALL)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{salt}-", svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    head = f'<svg class="plot" role="img" aria-label="{escape(label)}" {box[0]}>'
    svg = re.sub(r"<svg[^>]*>", lambda _: head, svg, count=1, flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    return Markup(svg.strip())
