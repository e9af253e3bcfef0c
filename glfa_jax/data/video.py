"""Video files to frames and back: decoding, resizing, MP4 and GIF."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from glfa_jax.data import DataError

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
    shown, duration = _decode(Path(path))
    starts = np.array([time for time, _ in shown])
    wanted = (np.arange(frames) + 0.5) * duration / frames
    # The frame on screen at a time is the last one that has started.
    index = np.searchsorted(starts, wanted, side="right") - 1
    return resize(np.stack([shown[i][1] for i in np.maximum(index, 0)]), resolution=resolution)


def read_all(path: str | Path) -> Frames:
    """Every frame of the clip at its own size."""
    return np.stack([picture for _, picture in _decode(Path(path))[0]])


def _decode(path: Path) -> tuple[list[tuple[float, ndarray]], float]:
    """(start in seconds, picture) of every frame, and the duration of the clip in seconds."""
    if not path.is_file():
        raise DataError(f"{path}: no such video file")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(f"{path}: holds no video stream")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise DataError(f"{path}: does not decode as video (no codec is named)")
            stream.codec_context.thread_count = 1
            promised = stream.frames
            rate = float(stream.average_rate or 0)
            shown = [
                (float(frame.time), frame.to_ndarray(format="rgb24"))
                for frame in container.decode(stream)
            ]
    except (av.error.FFmpegError, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DataError(f"{path}: does not decode as video ({reason})") from None
    if not shown or len(shown) < promised:
        raise DataError(f"{path}: does not decode as video ({len(shown)} of {promised} frames)")
    shown.sort(key=lambda item: item[0])
    first = shown[0][0]
    shown = [(time - first, picture) for time, picture in shown]
    step = 1 / rate if rate else shown[-1][0] / max(len(shown) - 1, 1)
    return shown, shown[-1][0] + step


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
