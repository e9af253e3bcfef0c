"""Pictures of the report as strings to embed: inline SVG that follows the page's colours, data
URIs for everything that is made of pixels."""

import base64
import io
import re
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from glfa_jax.report.html import escape

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

# Cold below zero, hot above, dark in between, as on an inflated cortex.
COLD_HOT = LinearSegmentedColormap.from_list(
    "cold_hot",
    [
        (0.0, "#c8fbff"),
        (0.14, "#4fc3f7"),
        (0.32, "#1f5fd0"),
        (0.5, "#34373e"),
        (0.68, "#c8281e"),
        (0.86, "#ff9a1f"),
        (1.0, "#fff7b0"),
    ],
)


def data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _png(rgba: np.ndarray) -> str:
    buffer = io.BytesIO()
    imsave(buffer, rgba, format="png")
    return data_uri(buffer.getvalue(), "image/png")


def map_limit(maps: Sequence[np.ndarray], mask: np.ndarray) -> float:
    """One symmetric colour limit for all maps: the 99th percentile of |z|, rounded up to 0.1."""
    values = np.abs(np.concatenate([array[..., mask].ravel() for array in maps]))
    values = values[np.isfinite(values)]
    return max(0.1, float(np.ceil(np.percentile(values, 99) * 10) / 10)) if values.size else 1.0


def flat_map(values: np.ndarray, *, mask: np.ndarray, limit: float) -> str:
    """PNG of one map (h, w), cropped to the cortex, transparent outside it and where not finite."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    crop = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    shown = mask[crop] & np.isfinite(values[crop])
    clean = np.where(shown, values[crop], 0.0)
    rgba = COLD_HOT(np.clip(clean / limit, -1, 1) * 0.5 + 0.5)
    rgba[~shown] = 0
    return _png((rgba * 255).round().astype(np.uint8))


def colour_bar() -> str:
    """PNG of the colour map from lowest (left) to highest."""
    ramp = COLD_HOT(np.linspace(0, 1, 256))[None].repeat(8, axis=0)
    return _png((ramp * 255).round().astype(np.uint8))


# --- intervals on a line ------------------------------------------------------------------------


def _x(value: float, span: tuple[float, float]) -> str:
    low, high = span
    # A margin of 2 % on both sides keeps dots and labels at the ends whole.
    return f"{2 + 96 * (min(max(value, low), high) - low) / (high - low):.2f}%"


def _ticks(span: tuple[float, float]) -> list[float]:
    inside = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(*span)
    return [tick for tick in inside if span[0] - 1e-9 <= tick <= span[1] + 1e-9]


def interval(
    value: float,
    *,
    low: float | None,
    high: float | None,
    mark: float | None,
    span: tuple[float, float],
    filled: bool,
    label: str,
) -> str:
    """One row of a dot plot, as wide as its container: interval, value, and a mark (chance)."""
    parts = [
        f'<line x1="{_x(t, span)}" x2="{_x(t, span)}" y1="0" y2="28" class="grid"/>'
        for t in _ticks(span)
    ]
    if mark is not None:
        x = _x(mark, span)
        parts.append(f'<line x1="{x}" x2="{x}" y1="3" y2="25" class="chance"/>')
    if low is not None and high is not None:
        x1, x2 = _x(low, span), _x(high, span)
        parts.append(f'<line x1="{x1}" x2="{x2}" y1="14" y2="14" class="interval"/>')
    kind = "dot" if filled else "dot hollow"
    parts.append(f'<circle cx="{_x(value, span)}" cy="14" r="5" class="{kind}"/>')
    return (
        f'<svg class="strip" role="img" aria-label="{escape(label)}" width="100%" height="28">'
        f"{''.join(parts)}</svg>"
    )


def axis(span: tuple[float, float]) -> str:
    """Tick labels under a column of `interval` rows."""
    labels = "".join(
        f'<text x="{_x(t, span)}" y="13" text-anchor="middle">{t:g}</text>' for t in _ticks(span)
    )
    return f'<svg class="strip axis" aria-hidden="true" width="100%" height="18">{labels}</svg>'


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


def loss_curve(entries: Sequence[dict[str, float]], *, salt: str, label: str) -> str:
    """Inline SVG: `loss` raw and smoothed, the terms it is made of smoothed only.

    The vertical axis is logarithmic where every value is positive and they span a factor of 5.
    """
    parts = [key for key in entries[-1] if _is_term(key)][: len(_EXTRA)]
    step = np.array([entry["step"] for entry in entries], float)
    window = smoothing_window(len(step))
    series = {
        key: np.array([_finite(entry.get(key)) for entry in entries]) for key in ["loss", *parts]
    }
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "font.size": 9}):
        figure = Figure(figsize=(4.4, 2.8), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        only = len(step) == 1
        axes.plot(step, series["loss"], color=_MUTED, alpha=0.4, linewidth=0.7)
        for key, colour in zip(parts, _EXTRA, strict=False):
            curve = smooth(series[key], window=window)
            axes.plot(step, curve, color=colour, linewidth=1.2, label=key.replace("_", " "))
        axes.plot(
            step,
            smooth(series["loss"], window=window),
            color=_ACCENT,
            linewidth=1.8,
            marker="o" if only else "",
            label="loss",
        )
        values = np.concatenate(list(series.values()))
        values = values[np.isfinite(values)]
        if values.size and values.min() > 0 and values.max() / values.min() > 5:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
        axes.set_xlabel("step", color=_MUTED)
        axes.grid(True, color=_RULE, linewidth=0.5)
        axes.tick_params(which="both", colors=_MUTED, length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        if parts:
            axes.legend(frameon=False, fontsize=8, labelcolor=_INK, handlelength=1.4)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _inline(buffer.getvalue(), salt=salt, label=label)


def _is_term(key: str) -> bool:
    return key in LOSS_TERMS or ("loss" in key and key != "loss")


def _finite(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


# --- time courses -------------------------------------------------------------------------------

# Beyond so many points a course is drawn as the band between its extremes.
_DRAWN = 1500


def time_course(
    runs: Sequence[np.ndarray], *, marked: Sequence[bool], step: float, salt: str, label: str
) -> str:
    """Inline SVG: runs one after another, per cent over minutes; marked runs in another colour.

    step: seconds between two values.
    """
    size = max(1, -(-sum(map(len, runs)) // _DRAWN))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "font.size": 9}):
        figure = Figure(figsize=(12, 1.9), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
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
        axes.tick_params(which="both", colors=_MUTED, length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _inline(buffer.getvalue(), salt=salt, label=label)


def _inline(svg: str, *, salt: str, label: str) -> str:
    """Matplotlib's SVG document as an HTML element: no prologue, no addresses, no global style, and
    ids that are no other figure's."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{salt}-", svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    head = f'<svg class="plot" role="img" aria-label="{escape(label)}" {box[0]}>'
    svg = re.sub(r"<svg[^>]*>", lambda _: head, svg, count=1, flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    return svg.strip()
