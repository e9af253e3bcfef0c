"""Video files to frames and back: decoding, resizing, MP4 and GIF."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from jaxtyping import Float, Shaped, UInt8
from numpy import ndarray
from scipy.sparse import csr_array

from glfa_jax.data import DataError
from glfa_jax.data.film import Film

EDGE = 1e-6  # seconds
PIECE = 2**25  # numbers of a frame that are scaled at a time
QUALITY = 12  # x264 constant rate factor: visually lossless

Frames = UInt8[ndarray, "f h w 3"]


@dataclass(frozen=True)
class Part:
    """A piece of a video file, in seconds; to the end of the file without a duration."""

    path: Path
    start: float = 0.0
    duration: float | None = None


def read_video(path: str | Path, *, frames: int, resolution: tuple[int, int]) -> Frames:
    """`frames` frames spread evenly over the whole clip, each from the middle of its share.

    A clip of exactly `frames` frames gives every frame once. The frame is stretched to
    `resolution` (height, width). Raises DataError where the file is damaged.
    """
    whole = Part(Path(path))
    return next(read_parts(path, [whole], frames=frames, resolution=resolution))


def read_all(path: str | Path) -> Frames:
    """Every frame of the clip at its own size."""
    with closing(Film(Path(path))) as film:
        return np.stack(list(film.every()))


def read_parts(
    path: str | Path, parts: Sequence[Part], *, frames: int, resolution: tuple[int, int] | None
) -> Generator[Frames, None, None]:
    """The frames of several parts of one file, in one pass; parts in the order of their starts.

    Each part gives what `read_video` gives of a clip that holds nothing else. Only needed frames
    are converted, and kept at `resolution`; at the size of the first of them if None. Raises
    DataError at the first part of which a frame lies beyond the end of the file or is damaged.
    """
    if any(later.start < part.start for part, later in pairwise(parts)):
        raise ValueError(f"{path}: parts must be in the order of their starts")
    with closing(Film(Path(path))) as film:
        parts = [
            part if part.duration else replace(part, duration=film.end - part.start)
            for part in parts
        ]
        wanted = sorted(
            (moment, number, i)
            for number, part in enumerate(parts)
            for i, moment in enumerate(_moments(part, frames))
        )
        on_screen = film.on_screen([moment for moment, _, _ in wanted if moment <= film.end])
        open_parts: dict[int, dict[int, ndarray]] = {}
        given = 0
        for (_, number, i), image in zip(wanted, on_screen, strict=False):
            resolution = image.shape[:2] if resolution is None else resolution
            shown = resize(image[None], resolution=resolution)[0]
            open_parts.setdefault(number, {})[i] = shown
            while len(open_parts.get(given, ())) == frames:
                part = open_parts.pop(given)
                given += 1
                yield np.stack([part[j] for j in range(frames)])
        if given < len(parts):
            raise DataError(
                f"{path}: ends at {film.end:.2f} s, but a clip needs its frame at "
                f"{wanted[-1][0]:.2f} s"
            )


def _moments(part: Part, frames: int) -> list[float]:
    """Seconds in the file, each in the middle of its share of the part."""
    share = (part.duration or 0) / frames
    # On the edge between two frames the later one shows, whatever rounding says.
    return [part.start + (i + 0.5) * share + EDGE for i in range(frames)]


def resize(frames: Frames, *, resolution: tuple[int, int]) -> Frames:
    """Antialiased linear resize to (height, width); frames of that size come back as they are."""
    if frames.shape[1:3] == tuple(resolution):
        return frames
    rows, columns = (
        _weights(old, new) for old, new in zip(frames.shape[1:3], resolution, strict=True)
    )
    shown = []
    for frame in frames:
        # In pieces of the width, since a frame in float32 is four times as large.
        pieces = np.array_split(frame, -(-frame.size // PIECE), axis=1)
        low = np.concatenate([_scaled(rows, piece) for piece in pieces], axis=1)
        small = _scaled(columns, low.swapaxes(0, 1)).swapaxes(0, 1)
        shown.append(np.rint(small).astype(np.uint8))
    return np.stack(shown)


def _scaled(weights: csr_array, image: Shaped[ndarray, "old n 3"]) -> Float[ndarray, "new n 3"]:
    scaled = weights @ image.reshape(len(image), -1).astype(np.float32)
    return scaled.reshape(-1, *image.shape[1:])


@lru_cache(maxsize=8)
def _weights(old: int, new: int) -> csr_array:
    """A triangle filter around each new pixel's centre, as wide as the coarser of the two grids.

    (new, old); almost all of it is 0.
    """
    scale = old / new
    centres = (np.arange(new) + 0.5) * scale - 0.5
    distance = np.abs(centres[:, None] - np.arange(old)) / max(scale, 1.0)
    weights = np.maximum(1 - distance, 0)
    return csr_array((weights / weights.sum(axis=1, keepdims=True)).astype(np.float32))


def write_mp4(path: str | Path, frames: Frames, *, frame_rate: float) -> None:
    """H.264 in 4:2:0, which every player shows; height and width must be even."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise ValueError(
            f"{path}: frames must be uint8 (f, h, w, 3), are {frames.dtype} {frames.shape}"
        )
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(f"{path}: height and width must be even, are {height} and {width}")
    rate = Fraction(frame_rate).limit_denominator(1001)
    # The same bytes every time: x264 splits work over threads differently on other machines, and
    # its macroblock tree differs from one run to the next.
    options = {"crf": str(QUALITY), "preset": "medium", "threads": "1", "x264-params": "mbtree=0"}
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for image in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_gif(path: str | Path, frames: Frames, *, frame_rate: float) -> None:
    """An animation that repeats for ever."""
    from PIL import Image  # comes with matplotlib; only this function needs it

    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(
        path,
        format="GIF",
        save_all=True,
        append_images=images[1:],
        duration=round(1000 / frame_rate),
        loop=0,
    )


def unit_range(video: UInt8[ndarray, "*b h w 3"]) -> Float[ndarray, "*b h w 3"]:
    """RGB from 0 ... 255 to [-1, 1]."""
    return video.astype(np.float32) / np.float32(127.5) - 1
