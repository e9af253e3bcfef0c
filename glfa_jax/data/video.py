"""Video files to frames and back: decoding, resizing, MP4 and GIF."""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from glfa_jax.data import DataError

EDGE = 1e-6  # seconds
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

    A clip of exactly `frames` frames gives every frame once. The picture is stretched to
    `resolution` (height, width). Raises DataError where the file does not decode to its end.
    """
    shown, end = _decode(Path(path))
    return _spread(shown, Part(Path(path), 0.0, end), frames=frames, resolution=resolution)


def read_all(path: str | Path) -> Frames:
    """Every frame of the clip at its own size."""
    return np.stack([picture for _, picture in _decode(Path(path))[0]])


def read_parts(
    path: str | Path, parts: Sequence[Part], *, frames: int, resolution: tuple[int, int]
) -> Iterator[Frames]:
    """The frames of several parts of one file, decoded once; parts in the order of their starts.

    Each part gives what `read_video` gives of a clip that holds nothing else, and memory holds one
    part at a time. A part without a duration is for short files, which are decoded whole. Raises
    DataError at the first part of which a frame lies beyond the end of the file.
    """
    if any(later.start < part.start for part, later in pairwise(parts)):
        raise ValueError(f"{path}: parts must be in the order of their starts")
    if any(part.duration is None for part in parts):
        shown, end = _decode(Path(path))
        for part in parts:
            whole = part if part.duration else replace(part, duration=end - part.start)
            _check_end(Path(path), end, _moments(whole, frames)[-1])
            yield _spread(shown, whole, frames=frames, resolution=resolution)
        return
    wanted = sorted(
        (moment, number, i)
        for number, part in enumerate(parts)
        for i, moment in enumerate(_moments(part, frames))
    )
    with closing(_on_screen(Path(path), [moment for moment, _, _ in wanted])) as pictures:
        open_parts: dict[int, dict[int, ndarray]] = {}
        given = 0
        for (_, number, i), picture in zip(wanted, pictures, strict=True):
            open_parts.setdefault(number, {})[i] = picture
            while len(open_parts.get(given, ())) == frames:
                shown = open_parts.pop(given)
                given += 1
                yield resize(np.stack([shown[j] for j in range(frames)]), resolution=resolution)


def _moments(part: Part, frames: int) -> list[float]:
    """Seconds in the file, each in the middle of its share of the part."""
    share = (part.duration or 0) / frames
    # On the edge between two frames the later one shows, whatever rounding says.
    return [part.start + (i + 0.5) * share + EDGE for i in range(frames)]


def _spread(
    shown: Sequence[tuple[float, ndarray]],
    part: Part,
    *,
    frames: int,
    resolution: tuple[int, int],
) -> Frames:
    starts = np.array([time for time, _ in shown])
    moments = _moments(part, frames)
    # The frame on screen at a moment is the last one that has started.
    index = np.maximum(np.searchsorted(starts, moments, side="right") - 1, 0)
    return resize(np.stack([shown[i][1] for i in index]), resolution=resolution)


def _check_end(path: Path, end: float, moment: float) -> None:
    if moment > end:
        raise DataError(
            f"{path}: ends at {end:.2f} s, but a clip needs its frame at {moment:.2f} s"
        )


def _on_screen(path: Path, moments: Sequence[float]) -> Generator[ndarray, None, None]:
    """The picture on screen at each of the moments, seconds, which never go back."""
    left = deque(moments)
    with _Film.open(path) as film:
        last = first = 0.0
        before = None
        for frame in film.frames():
            if before is None:
                first = float(frame.time)
            last = float(frame.time) - first
            # The frame on screen at a moment is the last one that has started.
            while left and left[0] < last:
                left.popleft()
                yield (before or frame).to_ndarray(format="rgb24")
            if not left:
                return
            before = frame
        film.check_whole()
        _check_end(path, last + film.step(last), left[-1])
        if before is not None:
            yield from (before.to_ndarray(format="rgb24") for _ in left)


@dataclass
class _Film:
    """An open video file."""

    path: Path
    container: Any
    count: int = 0

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator["_Film"]:
        """Whatever fails while the file is open becomes a DataError that names it."""
        if not path.is_file():
            raise DataError(f"{path}: no such video file")
        try:
            with av.open(str(path)) as container:
                if not container.streams.video:
                    raise DataError(f"{path}: holds no video stream")
                codec = container.streams.video[0].codec_context
                if codec is None:
                    raise DataError(f"{path}: does not decode as video (no codec is named)")
                codec.thread_count = 1
                yield cls(path, container)
        except (av.error.FFmpegError, EOFError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise DataError(f"{path}: does not decode as video ({reason})") from None

    def frames(self) -> Iterator[av.VideoFrame]:
        for frame in self.container.decode(self.container.streams.video[0]):
            self.count += 1
            yield frame

    def check_whole(self) -> None:
        promised = self.container.streams.video[0].frames
        if not self.count or self.count < promised:
            raise DataError(
                f"{self.path}: does not decode as video ({self.count} of {promised} frames)"
            )

    def step(self, last: float) -> float:
        """Seconds that the last frame, shown at `last`, stays on screen."""
        rate = float(self.container.streams.video[0].average_rate or 0)
        return 1 / rate if rate else last / max(self.count - 1, 1)


def _decode(path: Path) -> tuple[list[tuple[float, ndarray]], float]:
    """(start in seconds, picture) of every frame, and the duration of the clip in seconds."""
    with _Film.open(path) as film:
        shown = [(float(frame.time), frame.to_ndarray(format="rgb24")) for frame in film.frames()]
        film.check_whole()
        shown.sort(key=lambda item: item[0])
        first = shown[0][0]
        shown = [(time - first, picture) for time, picture in shown]
        return shown, shown[-1][0] + film.step(shown[-1][0])


def resize(frames: Frames, *, resolution: tuple[int, int]) -> Frames:
    """Antialiased linear resize to (height, width); pictures of that size come back as they are."""
    if frames.shape[1:3] == tuple(resolution):
        return frames
    rows, columns = (
        _weights(old, new) for old, new in zip(frames.shape[1:3], resolution, strict=True)
    )
    resized = (
        columns @ np.tensordot(rows, frame, axes=1) for frame in frames.astype(np.float32)
    )  # (y, h) (h, w, c) -> (y, w, c), then (x, w) (y, w, c) -> (y, x, c)
    return np.stack([np.rint(frame).astype(np.uint8) for frame in resized])


def _weights(old: int, new: int) -> Float[ndarray, "new old"]:
    """A triangle filter around each new pixel's centre, as wide as the coarser of the two grids."""
    scale = old / new
    centres = (np.arange(new) + 0.5) * scale - 0.5
    distance = np.abs(centres[:, None] - np.arange(old)) / max(scale, 1.0)
    weights = np.maximum(1 - distance, 0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


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
    # x264 splits work over threads differently on other machines; one thread gives the same bytes.
    options = {"crf": str(QUALITY), "preset": "medium", "threads": "1"}
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for picture in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_gif(path: str | Path, frames: Frames, *, frame_rate: float) -> None:
    """An animation that repeats for ever."""
    from PIL import Image  # comes with matplotlib; only this function needs it

    pictures = [Image.fromarray(frame) for frame in frames]
    pictures[0].save(
        path,
        format="GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=round(1000 / frame_rate),
        loop=0,
    )
