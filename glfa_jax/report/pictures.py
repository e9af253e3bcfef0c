"""Flat maps and films as pictures to embed in a page: small, and clear off the cortex."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap
from PIL import Image

# Cold below zero, hot above, dark in between, as on an inflated cortex.
_STOPS = {0.0: "#c8fbff", 0.14: "#4fc3f7", 0.32: "#1f5fd0", 0.5: "#34373e"}
_STOPS |= {0.68: "#c8281e", 0.86: "#ff9a1f", 1.0: "#fff7b0"}
COLD_HOT = LinearSegmentedColormap.from_list("cold_hot", list(_STOPS.items()))
# From dark, low, to light, high; read alike by people who confuse red and green.
DARK_LIGHT = matplotlib.colormaps["viridis"]
BLACK_WHITE = matplotlib.colormaps["gray"]
LEVELS = 255  # colours of an indexed PNG, one less for what is clear
COLUMNS = 4  # pictures beside each other


def data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


@dataclass(frozen=True)
class Picture:
    """An image, or a video that plays by itself.

    source: data URI. words: what it shows. width, height: in pixels, of a video unknown.
    playing: name of the key frames by which the cells of a strip, each of that size, are shown.
    """

    source: str
    words: str
    width: int = 0
    height: int = 0
    playing: str = ""

    @property
    def is_video(self) -> bool:
        return self.source.startswith("data:video/")

    @property
    def is_tiny(self) -> bool:
        """Whether it is to be shown with sharp pixels."""
        return self.width <= 128


@dataclass(frozen=True)
class Scale:
    """What the ends of a colour map stand for; values beyond take the end colours."""

    low: float
    high: float
    colours: Colormap

    @classmethod
    def around_zero(cls, maps: Sequence[np.ndarray], mask: np.ndarray) -> "Scale":
        """The same for all maps (..., h, w): ± the 99th percentile of |z|, rounded up to 0.1."""
        values = np.abs(np.concatenate([array[..., mask].ravel() for array in maps]))
        values = values[np.isfinite(values)]
        limit = float(np.ceil(np.percentile(values, 99) * 10) / 10) if values.size else 1.0
        limit = max(0.1, limit)
        return cls(-limit, limit, COLD_HOT)

    @classmethod
    def spanning(cls, maps: Sequence[np.ndarray], *, from_zero: bool = False) -> "Scale":
        """From the 1st to the 99th percentile of all values that are finite."""
        values = np.concatenate([array.ravel() for array in maps])
        values = values[np.isfinite(values)]
        low, high = np.percentile(values, (1, 99)) if values.size else (0.0, 1.0)
        low = 0.0 if from_zero else float(low)
        return cls(low, float(high) if high > low else low + 1, DARK_LIGHT)


def flat_map(
    values: np.ndarray, *, mask: np.ndarray, scale: Scale, words: str, playing: str = ""
) -> Picture:
    """One map (h, w), or several (n, h, w) side by side, cropped to the cortex; clear outside it
    and where not finite."""
    crop = _cortex(mask)
    stack = (values if values.ndim == 3 else values[None])[:, *crop]
    shown = mask[crop] & np.isfinite(stack)
    share = (np.where(shown, stack, scale.low) - scale.low) / (scale.high - scale.low)
    index = np.rint(np.clip(share, 0, 1) * (LEVELS - 1)).astype(np.uint8)
    index[~shown] = LEVELS
    image = Image.fromarray(np.concatenate(list(index), axis=1), mode="P")
    ramp = scale.colours(np.linspace(0, 1, LEVELS), bytes=True)[:, :3]
    image.putpalette(np.concatenate([ramp, [[0, 0, 0]]]).astype(np.uint8).tobytes())
    source = _encoded(image, "PNG", transparency=LEVELS, optimize=True)
    height, width = mask[crop].shape
    return Picture(source, words, width, height, playing)


def film(frames: np.ndarray, *, words: str, playing: str) -> Picture:
    """Frames (f, h, w, 3) uint8 side by side, to be shown one after another."""
    image = Image.fromarray(np.concatenate(list(frames), axis=1))
    height, width = frames.shape[1:3]
    return Picture(_encoded(image, "JPEG", quality=85), words, width, height, playing)


def still(frame: np.ndarray, *, words: str) -> Picture:
    """One frame (h, w, 3) uint8 as it is, pressed hard: for pages with thousands of them."""
    height, width = frame.shape[:2]
    return Picture(_encoded(Image.fromarray(frame), "JPEG", quality=70), words, width, height)


def _encoded(image: Image.Image, form: str, **options: object) -> str:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return data_uri(buffer.getvalue(), f"image/{form.lower()}")


def _cortex(mask: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns that hold cortex."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


# --- what stands on a page ------------------------------------------------------------------------


def colour_bar(scale: Scale, *, unit: str, words: str) -> dict[str, Any]:
    """picture, and what is written at its ends: low, high."""
    ramp = np.linspace(scale.low, scale.high, 256)[None].repeat(8, axis=0)
    ends = (scale.low, scale.high)
    low, high = (f"{v:,.0f}" if abs(v) >= 100 else f"{v:.3g}".replace("-", "−") for v in ends)
    return {
        "low": low,
        "high": f"{high} {unit}".rstrip(),
        "picture": flat_map(ramp, mask=np.ones(ramp.shape, bool), scale=scale, words=words),
    }


def map_row(
    name: str,
    maps: Sequence[np.ndarray],
    titles: Sequence[str],
    *,
    mask: np.ndarray,
    scale: Scale,
    unit: str | None = None,
    note: str = "",
    words: str = "{name}, {title}",
) -> dict[str, Any]:
    """Maps (h, w) beside each other on one scale, with a colour bar unless `unit` is None.

    words: what each map shows, in terms of `name` and its `title`.
    """
    shown = [
        (flat_map(m, mask=mask, scale=scale, words=words.format(name=name, title=title)), title)
        for m, title in zip(maps, titles, strict=True)
    ]
    bar = None
    if unit is not None:
        bar = colour_bar(scale, unit=unit, words=f"Colour scale of: {name}")
    columns = max(2, min(COLUMNS, len(shown)))
    return {"name": name, "note": note, "maps": shown, "columns": columns, "bar": bar}


def key_frames(name: str, *, cells: int, seconds: float, period: float) -> dict[str, Any]:
    """By which the cells of a strip are shown one after another, `seconds` each, over and over.

    For what is left of the `period` the last cell fades. Strips with one period stay in step.
    steps: when a cell is shown and where it lies, end: when the last fades; all in per cent.
    """
    begins = [100 * cell * seconds / period for cell in range(cells + 1)]
    places = [100 * cell / max(cells - 1, 1) for cell in range(cells)]
    return {
        "name": name,
        "period": period,
        "steps": [s for s in zip(begins[:-1], places, strict=True) if s[0] < 100 - 1e-6],
        "end": begins[-1] if begins[-1] < 100 - 1e-6 else None,
    }
