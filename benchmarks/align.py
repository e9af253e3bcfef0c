"""Time and memory of fitting each alignment to a new subject, at the size of real flat maps.

    python -m benchmarks.align --json benchmarks/results/align.json

Made-up maps: smooth patterns over the cortex of two hemispheres with common time courses, which a
smooth displacement moves for the new subject, and noise. By default 256 x 256 pixels, 31,000 of
them cortex, and 8 minutes: 240 clips of 2 s, windows of 3 volumes. Every method is fitted once, in
a process of its own. Seconds are of the whole fit, compilation included; the peak is that of the
process, the maps included, which take up `maps_mib` of it.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.ndimage import gaussian_filter, map_coordinates

from benchmarks.measuring import in_own_process, parser, peak_memory, table, write_result

# What is fitted, with its options; without pairs where it says so.
METHODS = {
    "warp, paired": ("warp", {}),
    "warp, unlabelled": ("warp", {}),
    "ridge, local": ("ridge", {"part": "local"}),
    "ridge, local, 13 x 13": ("ridge", {"part": "local", "kernel_size": 13}),
    "ridge, global": ("ridge", {"part": "global"}),
    "ridge, both": ("ridge", {"part": "both"}),
    "procrustes": ("procrustes", {}),
    "transport": ("transport", {}),
    "composed: warp, ridge": ("composed", {}),
}
PATTERNS = 40
SMOOTH, MOVED = 0.02, 0.016  # correlation length and displacement, of a map's height
NOISE = 1.0


class Made(NamedTuple):
    """mask; the maps of the new subject and of two others, z-scores."""

    mask: Bool[ndarray, "h w"]
    maps: Float[ndarray, "n w h w"]
    others: Float[ndarray, "2 n w h w"]


def make_mask(size: int) -> Bool[ndarray, "h w"]:
    """An ellipse in each half, together 31,160 pixels of 256 x 256."""
    row, column = np.indices((size, size)) / (size - 1) - 0.5
    ellipses = [(row / 0.314) ** 2 + ((column - c) / 0.2425) ** 2 < 1 for c in (-0.25, 0.25)]
    return ellipses[0] | ellipses[1]


def make(size: int, clips: int, window: int) -> Made:
    rng = np.random.default_rng(0)
    mask, volumes = make_mask(size), clips * window

    def smooth(count: int, scale: float) -> Float[ndarray, "k h w"]:
        drawn = rng.standard_normal((count, size, size))
        fields = gaussian_filter(drawn, (0, scale * size, scale * size), mode="wrap")
        return fields / fields.std()

    patterns = smooth(PATTERNS, SMOOTH)
    places = np.indices((size, size)) + MOVED * size * smooth(2, 0.15)
    moved = np.stack([map_coordinates(one, places, order=1, mode="nearest") for one in patterns])
    courses = rng.standard_normal((volumes, PATTERNS)) / PATTERNS**0.5

    def maps_of(patterns: Float[ndarray, "k h w"]) -> Float[ndarray, "n w h w"]:
        found = np.tensordot(courses, patterns, 1).astype(np.float32)
        for volume in found:
            volume += NOISE * rng.standard_normal(mask.shape, dtype=np.float32)
        found -= found.mean(0)
        found *= mask / found.std(0)
        return found.reshape(clips, window, size, size)

    return Made(mask, maps_of(moved), np.stack([maps_of(patterns), maps_of(patterns)]))


def fit(name: str, folder: Path) -> dict[str, float]:
    """Of one method, to the maps in a folder, in this process."""
    import jax.numpy as jnp

    from glfa_jax.alignments import Group, get

    made = Made(*(np.load(folder / f"{field}.npy") for field in Made._fields))
    jnp.zeros(1).block_until_ready()  # the device is up
    method, options = METHODS[name]
    targets = None if "unlabelled" in name else made.others.mean(0)
    group = Group(made.others, made.mask)
    held = sum(array.nbytes for array in made) + (0 if targets is None else targets.nbytes)
    start = time.perf_counter()
    fitted = get(method)(**options).fit(made.maps, targets=targets, group=group)
    seconds = time.perf_counter() - start
    return {
        "seconds": round(seconds, 1),
        "peak_mib": round(peak_memory() / 2**20),
        "maps_mib": round(held / 2**20),
        "params_mib": round(size_of(fitted.params) / 2**20, 1),
        **{key: round(value, 4) for key, value in fitted.report.items()},
    }


def size_of(params: dict) -> int:
    return sum(size_of(x) if isinstance(x, dict) else np.asarray(x).nbytes for x in params.values())


def parse() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--size", type=int, default=256)
    made.add_argument("--clips", type=int, default=240)
    made.add_argument("--window", type=int, default=3)
    made.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    made.add_argument("--fit", nargs=2, metavar=("METHOD", "FOLDER"), help="internal")
    return made.parse_args()


def main() -> int:
    args = parse()
    if args.fit:
        print(json.dumps(fit(args.fit[0], Path(args.fit[1]))))
        return 0
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        made = make(args.size, args.clips, args.window)
        for field, array in made._asdict().items():
            np.save(Path(folder) / f"{field}.npy", array)
        pixels = int(made.mask.sum())
        del made
        for name in args.methods:
            rows[name] = in_own_process("benchmarks.align", "--fit", name, folder)
            print(f"{name}: {rows[name]}", flush=True)
    columns = ["seconds", "peak_mib", "params_mib"]
    print(table(["method", *columns], [[n, *(row[c] for c in columns)] for n, row in rows.items()]))
    result = {
        "map_size": args.size,
        "cortex_pixels": pixels,
        "clips": args.clips,
        "window": args.window,
        "methods": rows,
    }
    write_result(args.json, result, packages=("jax", "jaxlib", "numpy"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
