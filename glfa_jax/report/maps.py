"""Flat maps and films as pictures to embed: small, in the page's rhythm, clear off the cortex."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.colors import Colormap
from PIL import Image

from glfa_jax.report.figures import COLD_HOT, data_uri
from glfa_jax.report.html import escape

# From dark, low, to light, high; read alike by people who confuse red and green.
DARK_LIGHT = matplotlib.colormaps["viridis"]
LEVELS = 255  # colours of an indexed PNG, one less for what is clear


@dataclass(frozen=True)
class Scale:
    """What the ends of a colour map stand for; values beyond take the end colours."""

    low: float
    high: float
    colours: Colormap

    @classmethod
    def around_zero(cls, limit: float) -> "Scale":
        return cls(-limit, limit, COLD_HOT)

    @classmethod
    def spanning(cls, maps: Sequence[np.ndarray], *, from_zero: bool = False) -> "Scale":
        """From the 1st to the 99th percentile of all values that are finite."""
        values = np.concatenate([array.ravel() for array in maps])
        values = values[np.isfinite(values)]
        low, high = np.percentile(values, (1, 99)) if values.size else (0.0, 1.0)
        low = 0.0 if from_zero else float(low)
        return cls(low, float(high) if high > low else low + 1, DARK_LIGHT)


def picture(values: np.ndarray, *, mask: np.ndarray, scale: Scale) -> str:
    """PNG of one map (h, w), or of several (n, h, w) side by side, cropped to the cortex; clear
    outside it and where not finite."""
    crop = cropped(mask)
    stack = (values if values.ndim == 3 else values[None])[:, *crop]
    shown = mask[crop] & np.isfinite(stack)
    share = (np.where(shown, stack, scale.low) - scale.low) / (scale.high - scale.low)
    index = np.rint(np.clip(share, 0, 1) * (LEVELS - 1)).astype(np.uint8)
    index[~shown] = LEVELS
    image = Image.fromarray(np.concatenate(list(index), axis=1), mode="P")
    ramp = scale.colours(np.linspace(0, 1, LEVELS), bytes=True)[:, :3]
    image.putpalette(np.concatenate([ramp, [[0, 0, 0]]]).astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=LEVELS, optimize=True)
    return data_uri(buffer.getvalue(), "image/png")


def cropped(mask: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns that hold cortex."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def film(frames: np.ndarray) -> str:
    """JPEG of frames (f, h, w, 3) uint8 side by side."""
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(list(frames), axis=1)).save(buffer, "JPEG", quality=85)
    return data_uri(buffer.getvalue(), "image/jpeg")


def colour_bar(scale: Scale, *, unit: str, label: str) -> str:
    """HTML: the scale between its ends."""
    ramp = np.linspace(scale.low, scale.high, 256)[None].repeat(8, axis=0)
    source = picture(ramp, mask=np.ones(ramp.shape, bool), scale=scale)
    ends = (scale.low, scale.high)
    low, high = (f"{v:,.0f}" if abs(v) >= 100 else f"{v:.3g}".replace("-", "−") for v in ends)
    return (
        f'<div class="bar"><span>{low}</span><img src="{source}" alt="{escape(label)}">'
        f"<span>{high}{unit and ' ' + escape(unit)}</span></div>"
    )


# --- pictures that play -------------------------------------------------------------------------


def keyframes(name: str, *, cells: int, seconds: float, period: float) -> str:
    """CSS that shows the cells of a strip one after another, `seconds` each, over and over.

    For what is left of the `period` the last cell fades. Strips with one period stay in step.
    """
    steps = []
    for cell in range(cells):
        place = 100 * cell / max(cells - 1, 1)
        begin = 100 * cell * seconds / period
        if begin < 100 - 1e-6:
            steps.append(f"{begin:.4f}% {{ object-position: {place:.4f}% 0; opacity: 1; }}")
    end = 100 * cells * seconds / period
    if end < 100 - 1e-6:
        steps.append(f"{end:.4f}% {{ opacity: .12; }}")
    return (
        f"@keyframes {name} {{ {' '.join(steps)} }}\n"
        f".{name} {{ animation: {name} {period:g}s step-end infinite; }}"
    )


def playing(source: str, *, name: str, shape: tuple[int, int], alt: str) -> str:
    """HTML: a strip whose cells of `shape` (h, w) play as `keyframes` of that name say."""
    height, width = shape
    tiny = " tiny" if width <= 128 else ""
    return (
        f'<img class="playing {name}{tiny}" src="{source}" alt="{escape(alt)}" '
        f'style="aspect-ratio: {width} / {height}">'
    )
