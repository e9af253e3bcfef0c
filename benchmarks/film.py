"""Cutting clips out of a film: time and memory.

    python -m benchmarks.film --json benchmarks/results/film.json

Writes a film of ten minutes in 1080p (ten seconds of moving texture in H.264, repeated; one frame
in 250 is a place to begin), its first minute, and thirty frames of 8192 x 8192. Measured, each in
a process of its own: clips of 2 s out of all of the film, and the whole of the other two as one
clip, always six frames of 256 x 256. `--before FILE` measures another version of
`glfa_jax/data/video.py` as well, on the first minute and its first ten seconds.
"""

import importlib.util
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import numpy as np

from benchmarks.measuring import in_own_process, parser, peak_memory, table, write_result
from glfa_jax.data import video

RATE, PIECE = 25, 250  # frames a second, and of the piece that is repeated
MINUTES, SECONDS = 10, 2.0  # of the film, and of a clip
FRAMES, RESOLUTION = 6, (256, 256)
OPTIONS = {"preset": "ultrafast", "crf": "28"}
LIMIT = 600 * 2**20  # bytes of memory for anything in 1080p


def write_piece(path: Path, *, count: int, height: int, width: int) -> None:
    """A texture that drifts, in H.264."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(16, 236, (height // 16, width // 16)).astype(np.uint8)
    luma = np.kron(coarse, np.ones((16, 16), np.uint8))
    chroma = np.full((height // 2, width), 128, np.uint8)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=RATE, options=OPTIONS)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for i in range(count):
            planes = np.concatenate([np.roll(luma, 2 * i, axis=1), chroma])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode())


def repeat(piece: Path, path: Path, *, times: int) -> None:
    with av.open(str(path), "w", format="mp4") as made:
        copied = None
        for number in range(times):
            with av.open(str(piece)) as given:
                stream = given.streams.video[0]
                copied = copied or made.add_stream_from_template(stream)
                for packet in given.demux(stream):
                    if packet.dts is not None:
                        late = round(number * PIECE / RATE / stream.time_base)
                        packet.pts, packet.dts = packet.pts + late, packet.dts + late
                        packet.stream = copied
                        made.mux(packet)


def measured(
    path: Path, *, clips: int = 0, minutes: int = 0, reader: Path | None = None
) -> dict[str, Any]:
    """clips: how many are cut out, evenly over the minutes; none for the whole file as one."""
    before = [] if reader is None else ["--before", reader]
    every = 60.0 * minutes / max(clips, 1)
    return in_own_process("benchmarks.film", "--measure", path, clips, every, *before)


def measure(path: Path, clips: int, every: float, reader: Path | None) -> dict[str, Any]:
    module: Any = video if reader is None else load(reader)
    parts = [module.Part(path, every * i, SECONDS) for i in range(clips)]
    films = []
    if reader is None:

        class Film(video.Film):
            def __init__(self, path: Path):
                super().__init__(path)
                films.append(self)

        module.Film = Film
    size = {"frames": FRAMES, "resolution": RESOLUTION}
    before = peak_memory()
    start = time.perf_counter()
    if parts:
        made = sum(1 for _ in module.read_parts(path, parts, **size))
    else:
        made = len([module.read_video(path, **size)])
    seconds = time.perf_counter() - start
    return {
        "clips": made,
        "seconds": round(seconds, 2),
        "seconds_a_clip": round(seconds / made, 3),
        "peak_bytes": peak_memory(),
        "bytes_before": before,
        **({"frames_decoded": sum(film.decoded for film in films)} if films else {}),
    }


def load(reader: Path) -> Any:
    spec = importlib.util.spec_from_file_location("reader", reader)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["reader"] = module
    spec.loader.exec_module(module)
    return module


def main() -> int:
    made = parser(__doc__)
    made.add_argument("--clips", type=int, default=300, help="out of the film")
    made.add_argument("--before", type=Path, metavar="FILE", help="another version's video.py")
    made.add_argument("--measure", nargs=3, metavar=("FILE", "CLIPS", "EVERY"), help="internal")
    args = made.parse_args()
    if args.measure:
        path, clips, every = args.measure
        print(json.dumps(measure(Path(path), int(clips), float(every), args.before)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        piece, minute, film, large = (
            Path(folder) / f"{name}.mp4" for name in ("piece", "minute", "film", "large")
        )
        write_piece(piece, count=PIECE, height=1080 // 16 * 16, width=1920)
        repeat(piece, minute, times=6)
        repeat(piece, film, times=6 * MINUTES)
        write_piece(large, count=30, height=8192, width=8192)
        few = max(args.clips // MINUTES, 1)
        rows = {
            "film of 600 s, 1080p": measured(film, clips=args.clips, minutes=MINUTES),
            "film of 60 s, 1080p": measured(minute, clips=few, minutes=1),
            "clip of 60 s, 1080p": measured(minute),
            "clip of 10 s, 1080p": measured(piece),
            "thirty frames of 8192 x 8192": measured(large),
        }
        if args.before:
            rows["film of 60 s, 1080p, before"] = measured(
                minute, clips=few, minutes=1, reader=args.before
            )
            rows["clip of 10 s, 1080p, before"] = measured(piece, reader=args.before)
    lines = [
        [
            name,
            *(row[key] for key in ("clips", "seconds", "seconds_a_clip")),
            row["peak_bytes"] // 2**20,
            row.get("frames_decoded", ""),
        ]
        for name, row in rows.items()
    ]
    head = ("file", "clips", "seconds", "seconds a clip", "MiB", "frames decoded")
    print(table(head, lines))
    result = {"rows": rows, "load": round(os.getloadavg()[0], 1)}
    write_result(args.json, result, packages=("numpy", "av"))
    now_1080p = [row for name, row in rows.items() if "1080p" in name and "before" not in name]
    return int(any(row["peak_bytes"] > LIMIT for row in now_1080p))


if __name__ == "__main__":
    sys.exit(main())
