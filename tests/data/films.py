"""Video files for tests, as cameras, encoders and editors write them."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

HEIGHT, WIDTH = 32, 48
TURN = 2**16  # one, in a display matrix


def images(count):
    """Coarse patterns that no two have in common and that no turn leaves alike."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, HEIGHT // 8, WIDTH // 8, 3)).astype(np.uint8)
    return np.kron(coarse, np.ones((1, 8, 8, 1), np.uint8))


def encode(
    path,
    count,
    *,
    codec="libx264",
    rate=25,
    format=None,
    pixels="yuv420p",
    options=None,
    container=None,
):
    with av.open(str(path), "w", format=format, options=container or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, pixels
        stream.codec_context.thread_count = 1
        for image in images(count):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixels)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def copy(source, target, *, format=None, move=0.0, until=None, seconds=None):
    """Packets as they are.

    move: seconds by which all come later. until: seconds of the source. seconds: of each frame,
    in the order in which they are shown, instead of their own.
    """
    with av.open(str(source)) as given, av.open(str(target), "w", format=format) as made:
        stream = given.streams.video[0]
        copied = made.add_stream_from_template(stream)
        unit = stream.time_base
        packets = [packet for packet in given.demux(stream) if packet.dts is not None]
        if seconds is not None:
            assert all(packet.pts == packet.dts for packet in packets)
            starts = np.cumsum([0, *seconds])
            for packet, start, duration in zip(packets, starts, seconds, strict=False):
                packet.pts = packet.dts = round(start / unit)
                packet.duration = round(duration / unit)
        for packet in packets:
            if until is None or packet.dts * unit < until:
                packet.pts += round(Fraction(move) / unit)
                packet.dts += round(Fraction(move) / unit)
                packet.stream = copied
                made.mux(packet)
    return target


def turn(source: Path, target: Path, *matrix: float) -> Path:
    """Writes what a camera says of how it was held: (x, y) is shown at (a x + c y, b x + d y)."""
    content = source.read_bytes()
    old, new = (
        struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 2**30)
        for a, b, c, d in ((TURN, 0, 0, TURN), [round(TURN * value) for value in matrix])
    )
    place = content.index(old, content.index(b"tkhd"))
    target.write_bytes(content[:place] + new + content[place + len(old) :])
    return target
