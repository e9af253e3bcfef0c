"""A video file: when each of its frames is shown, and the frame on screen at a moment."""

import gc
from bisect import bisect_right
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.stream import Disposition
from jaxtyping import UInt8
from numpy import ndarray

from glfa_jax.data import DataError, reading
from glfa_jax.data.cutoff import validate_complete

# What holds its frames itself: no playlist, script or pattern that names other files.
FORMATS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "mpegvideo", "asf", "flv", "gif", "ogg", "nut"),
    *("mxf", "rm", "dv", "ivf", "h264", "hevc", "m4v", "mjpeg", "yuv4mpegpipe", "apng", "obu"),
    *("wtv", "swf"),
    *("image2", "jpeg_pipe", "png_pipe", "webp_pipe", "bmp_pipe", "tiff_pipe"),  # an image alone
)
BY_PACKET = ("avi", "mxf")
MOST_PIXELS = 2**27  # of a frame; a damaged size must not take all memory
LARGE = 2**19  # pixels, from where on memory must not wait for Python to look for what is unused
FAR = 32  # frames; skipping fewer costs more than decoding them
COVERS = Disposition.attached_pic | Disposition.timed_thumbnails

Image = UInt8[ndarray, "h w 3"]


class Film:
    """Frames of one file, which is decoded only where one is needed; close it after use.

    end: seconds from the start of the first frame to the end of the last.
    decoded: frames so far.
    """

    def __init__(self, path: Path):
        validate_complete(path)
        self.path = path
        self.decoded = 0
        with _opened(path) as (container, stream):
            self._index = _Index.read(container, stream)
        self._frames = self._decode()
        first = next(self._frames, None)
        if first is None:
            raise DataError(f"{path}: truncated or no video (no frame decodes)")
        self._next = first
        self._late = 0.0
        self._first = self._start(first, self._index.first)
        if self._index.by_packet:
            # A frame comes with the packet by which the decoder knows that it is next.
            self._late, self._first = self._first - self._index.first, self._index.first
        self.end = self._index.end - self._first

    def close(self) -> None:
        self._leave(self._frames)

    def every(self) -> Iterator[Image]:
        """All frames from the next one on."""
        yield self._image(self._next)
        yield from map(self._image, self._frames)

    def on_screen(self, moments: Sequence[float]) -> Iterator[Image]:
        """The frame at each of the moments, seconds before the end, which never go back."""
        left = deque(moments)
        shown, start, damaged = self._next, self._first, self._next.is_corrupt
        while left:
            # The frame on screen at a moment is the last one that has started.
            following = self._ahead(start, left[0] + self._first) or next(self._frames, None)
            later = np.inf if following is None else self._start(following, start)
            if later < start:
                raise DataError(f"{self.path}: its times go back after {start - self._first:.2f} s")
            if following is None and self._lacks_end(start):
                raise DataError(
                    f"{self.path}: damaged, nothing decodes after {start - self._first:.2f} s"
                )
            image = None
            while left and left[0] < later - self._first:
                if damaged:
                    raise DataError(
                        f"{self.path}: damaged, the frame at {left[0]:.2f} s does not decode"
                    )
                left.popleft()
                image = self._image(shown) if image is None else image
                yield image
            if following is not None:
                shown, start = following, later
                # What is predicted from a damaged frame is no better.
                damaged = shown.is_corrupt or (damaged and not shown.key_frame)

    def _image(self, frame: av.VideoFrame) -> Image:
        with reading(self.path, "video"):
            return _upright(self.path, frame)

    def _decode(self, key: int | None = None) -> Generator[av.VideoFrame, None, None]:
        """The frames from the start, or from where the file says that one can begin."""
        with _opened(self.path) as (container, stream):
            if key is not None:
                container.seek(key, stream=stream)
            for frame in container.decode(stream):
                self.decoded += 1
                yield frame

    def _leave(self, frames: Generator[av.VideoFrame, None, None]) -> None:
        """A file that PyAV has open refers to itself, and its decoder holds many frames."""
        frames.close()
        if self._next.width * self._next.height > LARGE:
            gc.collect()

    def _ahead(self, start: float, moment: float) -> av.VideoFrame | None:
        """The frame to begin with where many before `moment` need not be decoded."""
        index = self._index
        at = bisect_right(index.keys, moment, key=index.seconds) - 1
        if at < 0 or not self._is_far(start, index.seconds(index.keys[at])):
            return None
        frames = self._decode(index.keys[at])
        with suppress(DataError):
            for frame in frames:
                if frame.pts is None or frame.pts < index.keys[at]:
                    continue  # needs frames from before
                if frame.pts == index.keys[at] and frame.key_frame and not frame.is_corrupt:
                    self._leave(self._frames)
                    self._frames = frames
                    return frame
                break
        self._leave(frames)
        index.keys.clear()  # the file says wrong things of where one can begin
        return None

    def _is_far(self, start: float, key: float) -> bool:
        starts = self._index.starts
        return bool(np.searchsorted(starts, key) - np.searchsorted(starts, start) > FAR)

    def _lacks_end(self, start: float) -> bool:
        # Packets of AVI may say only that the frame stays.
        index = self._index
        return not index.by_packet and start < index.last - 0.75 * index.step

    def _start(self, frame: av.VideoFrame, before: float) -> float:
        ticks = frame.dts if self._index.by_packet else frame.pts
        if ticks is None:
            return before + self._index.nominal
        return self._index.seconds(ticks) - self._late


@dataclass
class _Index:
    """What the packets of a stream say, in seconds on the file's own clock.

    starts: of the frames, in the order in which they are shown.
    step: seconds that the last one stays.
    nominal: seconds from one to the next by the frame rate.
    keys: times in units of the file at which decoding may begin.
    by_packet: the frames themselves do not say when they are shown, their packets do.
    """

    starts: ndarray
    step: float
    nominal: float
    keys: list[int]
    unit: Any
    by_packet: bool

    @classmethod
    def read(cls, container: Any, stream: Any) -> "_Index":
        rows, corrupt = [], False
        for packet in container.demux(stream):
            if packet.size:
                corrupt = packet.is_corrupt
                if not packet.is_discard:  # before or after what an edit list shows
                    rows.append((packet.pts, packet.dts, packet.duration, packet.is_keyframe))
        if corrupt:
            raise ValueError("ends within a frame; copy it anew")
        if not rows:
            raise ValueError("holds no frame")
        unit, rate = stream.time_base, stream.average_rate or stream.guessed_rate
        # These know steady times of packets, none of frames; what libraries make of it is wrong.
        by_packet = container.format.name in BY_PACKET or all(row[0] is None for row in rows)
        timed = [
            (time, duration, key)
            for pts, dts, duration, key in rows
            if (time := dts if by_packet else pts) is not None
        ]
        if not timed and rate:
            timed = [(round(i / rate / unit), 0, False) for i in range(len(rows))]
        if not timed:
            raise ValueError("does not say when its frames are shown")
        timed.sort()
        ticks = np.array([time for time, _, _ in timed], np.float64)
        starts = ticks * unit.numerator / unit.denominator
        step = _last_step(
            starts,
            np.array([float((duration or 0) * unit) for _, duration, _ in timed]),
            rate=float(rate or 0),
            unit=float(unit),
            ends=_ends(container, stream, first=float(starts[0])),
        )
        keys = [] if by_packet else [time for time, _, key in timed if key]
        return cls(starts, step, float(1 / rate) if rate else step, keys, unit, by_packet)

    @property
    def first(self) -> float:
        return float(self.starts[0])

    @property
    def last(self) -> float:
        return float(self.starts[-1])

    @property
    def end(self) -> float:
        return self.last + self.step

    def seconds(self, ticks: int) -> float:
        return float(ticks) * self.unit.numerator / self.unit.denominator


def _ends(container: Any, stream: Any, *, first: float) -> Iterator[float]:
    """When the stream and the whole file end, by their heads; they may not say when they begin."""
    for part, unit in ((stream, stream.time_base), (container, 1 / av.time_base)):
        if part.duration:
            start = first if part.start_time is None else float(part.start_time * unit)
            yield start + float(part.duration * unit)


def _last_step(
    starts: ndarray, durations: ndarray, *, rate: float, unit: float, ends: Iterator[float]
) -> float:
    """Seconds that the last frame stays on screen."""
    gaps, own = np.diff(starts), float(durations[-1])
    steady = 1 / rate if rate else 0.0

    def always(step: float) -> bool:
        return step > 0 and bool((np.abs(gaps - step) <= unit * 1.01).all())

    # One duration for all, though they start irregularly, is but the frame rate in other words.
    nominal = not (durations != own).any() and not always(own)
    if own and not nominal:
        return steady if abs(own - steady) <= unit else own  # the rate is not rounded to units
    if always(steady):
        return steady
    stated = next((end - starts[-1] for end in ends if end > starts[-1]), 0.0)
    return float(stated or own or steady or starts[-1] / max(len(starts) - 1, 1))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Container and video stream; whatever fails while they are open becomes a DataError."""
    limit = {"max_pixels": str(MOST_PIXELS)}
    # A name alone could mean a protocol, and that of an image a pattern for many.
    options = {"protocol_whitelist": "file", "pattern_type": "none", **limit}
    options["max_streams"] = "64"  # all are looked into while a file is opened
    options["format_whitelist"] = ",".join(FORMATS)
    with reading(path, "video"):
        try:
            # Its tags may be in any encoding.
            with av.open(
                f"file:{path.absolute()}", options=options, metadata_errors="replace"
            ) as container:
                stream = _video(path, container)
                stream.codec_context.thread_count = 1
                stream.codec_context.options = limit
                yield container, stream
        except av.error.ArgumentError:
            raise ValueError("none of the formats that are read") from None
        except av.error.FFmpegError as error:
            if isinstance(error, (OSError, MemoryError)):
                raise
            raise ValueError(error.strerror) from None


def _video(path: Path, container: Any) -> Any:
    """The stream that a player shows."""
    streams = [s for s in container.streams.video if not s.disposition & COVERS]
    if not streams:
        raise DataError(f"{path}: holds no video stream")
    default = Disposition.default
    stream = next((s for s in streams if s.disposition & default), streams[0])
    codec = stream.codec_context
    if codec is None:
        raise ValueError("its codec is not known here")
    if codec.width * codec.height > MOST_PIXELS:
        raise DataError(
            f"{path}: frames of {codec.width} x {codec.height} pixels, at most {MOST_PIXELS:,} "
            "are read"
        )
    return stream


def _upright(path: Path, frame: av.VideoFrame) -> Image:
    """The frame as a player shows it: cameras are held sideways and say so."""
    image = frame.to_ndarray(format="rgb24")
    # A point (x, y) is shown at (a x + c y, b x + d y).
    a, b, c, d = _matrix(frame)
    straight, turned = min(abs(a), abs(d)), min(abs(b), abs(c))
    if max(abs(b), abs(c)) * 100 <= straight:
        right, down = a, d
    elif max(abs(a), abs(d)) * 100 <= turned:
        image, right, down = image.swapaxes(0, 1), c, b
    else:
        raise DataError(f"{path}: is shown turned by no quarter turns; turn it upright and save it")
    return image[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]


def _matrix(frame: av.VideoFrame) -> Sequence[float]:
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # something else beside the frame is newer than PyAV
        angle = np.deg2rad(frame.rotation)
        return np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
    return (
        (1, 0, 0, 1) if matrix is None else np.frombuffer(matrix, np.int32)[[0, 1, 3, 4]].tolist()
    )
