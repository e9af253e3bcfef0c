"""Optical flow (TV-L1) of clips against scikit-image's, side by side: time and agreement.

    python -m benchmarks.optical_flow --json benchmarks/results/optical_flow_cpu.json

Both take turns on the same clips of a texture that moves, six frames each; a time is the median
over rounds. Prints a table; fails where the flows differ by more than a thousandth of a pixel on
average.
"""

import sys
from itertools import pairwise
from typing import Any

import jax
import numpy as np
from scipy.ndimage import gaussian_filter, shift
from skimage.registration import optical_flow_tvl1

from benchmarks.measuring import median_seconds, parser, table, write_result
from glfa_jax.metrics.optical_flow import tvl1

FRAMES = 6
AGREEMENT = 1e-3  # pixels


def make_clips(clips: int, size: int) -> np.ndarray:
    """Grey values from 0 to 1, (clips, frames, size, size)."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(clips):
        texture = gaussian_filter(rng.random((size, size)), size / 32, mode="wrap")
        texture = (texture - texture.min()) / np.ptp(texture)
        speed = rng.uniform(-0.02, 0.02, 2) * size  # pixels a frame
        made.append([shift(texture, i * speed, order=1, mode="grid-wrap") for i in range(FRAMES)])
    return np.array(made, np.float32)


def ours(clips: np.ndarray) -> np.ndarray:
    return np.stack([jax.device_get(tvl1(clip[:-1], clip[1:])) for clip in clips])


def theirs(clips: np.ndarray) -> np.ndarray:
    return np.array([[optical_flow_tvl1(*pair) for pair in pairwise(clip)] for clip in clips])


def compare(clips: np.ndarray, *, rounds: int) -> dict[str, Any]:
    apart = np.abs(ours(clips) - theirs(clips))
    seconds = median_seconds(
        {"ours": lambda: ours(clips), "scikit-image": lambda: theirs(clips)}, rounds=rounds
    )
    return {
        "size": clips.shape[-1],
        "seconds_a_clip": {name: value / len(clips) for name, value in seconds.items()},
        "ratio": seconds["scikit-image"] / seconds["ours"],
        "mean_difference": float(apart.mean()),
        "largest_difference": float(apart.max()),
    }


def main(argv: list[str] | None = None) -> int:
    made = parser(__doc__, rounds=5)
    made.add_argument("--sizes", type=int, nargs="+", default=[64, 256], metavar="PIXELS")
    made.add_argument("--clips", type=int, default=4)
    args = made.parse_args(argv)
    rows = [compare(make_clips(args.clips, size), rounds=args.rounds) for size in args.sizes]
    head = ("pixels", "ours, s a clip", "scikit-image", "ratio", "apart on average", "at most")
    lines = []
    for row in rows:
        seconds = row["seconds_a_clip"]
        times = [f"{seconds[name]:.3g}" for name in ("ours", "scikit-image")]
        apart = [f"{row[name]:.1g} px" for name in ("mean_difference", "largest_difference")]
        lines.append([row["size"], *times, f"{row['ratio']:.1f}x", *apart])
    print(table(head, lines))
    result = {"clips": args.clips, "frames": FRAMES, "rounds": args.rounds, "rows": rows}
    packages = ("jax", "jaxlib", "numpy", "scipy", "scikit-image")
    write_result(args.json, result, packages=packages)
    return int(max(row["mean_difference"] for row in rows) > AGREEMENT)


if __name__ == "__main__":
    sys.exit(main())
