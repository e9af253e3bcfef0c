"""The local layer's implementations side by side: time, memory and agreement.

    python -m benchmarks.local_conv --json benchmarks/results/local_conv_cpu.json

Three candidates: `reference` (lax.conv_general_dilated_local), `tiled` (what the models use) and
`torch`, the usual PyTorch formulation, written from the formula: every neighbourhood unfolded,
times the weights, summed. Times are medians over rounds in which all candidates take turns; memory
is what one call adds to the peak of a fresh process, results included. At the published size and 80
frames the others want 12 GB and a minute a call. Prints a table; fails where results disagree.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from glfa_jax.ops.local_conv import local_conv
from glfa_jax.training.logs import write_atomically

CANDIDATES = ("reference", "tiled", "torch")
MODES = ("forward", "forward+backward")
AGREEMENT = 1e-5  # of the largest magnitude

Call = Callable[[], tuple[Any, ...]]  # y; or y, dx, dtheta


def make_inputs(frames: int, size: int, kernel_size: int) -> dict[str, np.ndarray]:
    """Maps with a background of zeros, weights as after some training, a cotangent."""
    rng = np.random.default_rng(0)
    row, column = np.mgrid[:size, :size] / size - 0.5
    mask = (row / 0.5) ** 2 + (column / 0.45) ** 2 < 1
    x = rng.standard_normal((frames, size, size), np.float32) * mask
    theta = 0.05 * rng.standard_normal((kernel_size**2, size, size), np.float32)
    cotangent = rng.standard_normal(x.shape, np.float32)
    return {"x": x, "theta": theta, "cotangent": cotangent}


def in_jax(implementation: Any, mode: str, inputs: dict[str, np.ndarray], kernel_size: int) -> Call:
    """Compiled; a call returns when its results are there."""
    layer = partial(local_conv, kernel_size=kernel_size, implementation=implementation)

    def run(x: jax.Array, theta: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, ...]:
        if mode == "forward":
            return (layer(x, theta),)
        y, pull = jax.vjp(layer, x, theta)
        return (y, *pull(cotangent))

    arrays = [jnp.asarray(inputs[name]) for name in ("x", "theta", "cotangent")]
    compiled = jax.jit(run).lower(*arrays).compile()
    return lambda: jax.block_until_ready(compiled(*arrays))


def in_torch(mode: str, inputs: dict[str, np.ndarray], kernel_size: int) -> Call:
    import torch
    import torch.nn.functional as F

    x = torch.from_numpy(inputs["x"])
    # PyTorch's layer keeps a pixel's taps together.
    theta = torch.from_numpy(np.ascontiguousarray(inputs["theta"].transpose(1, 2, 0)))
    cotangent = torch.from_numpy(inputs["cotangent"])
    half = kernel_size // 2
    identity = torch.zeros(kernel_size**2)
    identity[kernel_size**2 // 2] = 1

    def layer(x: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
        weights = (identity + theta).abs()
        weights = weights / weights.sum(-1, keepdim=True)
        around = F.pad(x, (half,) * 4).unfold(1, kernel_size, 1).unfold(2, kernel_size, 1)
        return (around.flatten(3) * weights).sum(-1) * (x != 0)

    def forward() -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            return (layer(x, theta),)

    def both() -> tuple[torch.Tensor, ...]:
        leaves = x.clone().requires_grad_(), theta.detach().requires_grad_()
        y = layer(*leaves)
        dx, dtheta = torch.autograd.grad(y, leaves, cotangent)
        return y.detach(), dx, dtheta.permute(2, 0, 1)

    return forward if mode == "forward" else both


def prepare(name: str, mode: str, inputs: dict[str, np.ndarray], kernel_size: int) -> Call:
    if name == "torch":
        return in_torch(mode, inputs, kernel_size)
    return in_jax(name, mode, inputs, kernel_size)


def measure_times(calls: dict[str, Call], rounds: int) -> dict[str, float]:
    """Median seconds of each, taking turns; a first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if round_:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def differences(calls: dict[str, Call]) -> dict[str, float]:
    """Largest difference of each to the reference, relative to the largest magnitude."""
    results = {name: [np.asarray(array) for array in call()] for name, call in calls.items()}
    expected = results.pop("reference")
    return {
        name: max(
            float(np.abs(ours - wanted).max() / np.abs(wanted).max())
            for ours, wanted in zip(found, expected, strict=True)
        )
        for name, found in results.items()
    }


def added_memory(call: Call) -> int:
    """Bytes by which one call raises the peak of this process (Linux)."""

    def status(key: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        (line,) = (line for line in lines if line.startswith(f"{key}:"))
        return int(line.split()[1]) * 1024

    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = status("VmRSS")
    kept = call()  # the results count
    peak = status("VmHWM")
    del kept
    return peak - before


def memory_in_a_fresh_process(name: str, mode: str, frames: int, args: argparse.Namespace) -> int:
    command = [sys.executable, "-m", "benchmarks.local_conv", "--memory-of", name, mode]
    command += ["--frames", str(frames), "--size", str(args.size), "--kernel", str(args.kernel)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def table(rows: list[dict[str, Any]]) -> str:
    head = "| frames | pass | " + " | ".join(
        (*(f"{name}, ms" for name in CANDIDATES), "faster than reference", "than torch")
    )
    head += " | " + " | ".join(f"{name}, MiB" for name in CANDIDATES) + " |"
    lines = [head, "|" + "---|" * (head.count("|") - 1)]
    for row in rows:
        ms, mib = row["milliseconds"], row["added_mib"]
        cells = [str(row["frames"]), row["pass"]]
        cells += [f"{ms[name]:.1f}" for name in CANDIDATES]
        cells += [f"{ms[name] / ms['tiled']:.0f}x" for name in ("reference", "torch")]
        cells += [f"{mib[name]:.0f}" for name in CANDIDATES]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, nargs="+", default=[1, 10, 40, 80])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--kernel", type=int, default=13)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--memory-of", nargs=2, metavar=("CANDIDATE", "PASS"), help="internal")
    return parser.parse_args()


def main() -> int:
    args = parse()
    if args.memory_of:
        name, mode = args.memory_of
        inputs = make_inputs(args.frames[0], args.size, args.kernel)
        print(added_memory(prepare(name, mode, inputs, args.kernel)))
        return 0
    rows = []
    for frames in args.frames:
        inputs = make_inputs(frames, args.size, args.kernel)
        for mode in MODES:
            calls = {name: prepare(name, mode, inputs, args.kernel) for name in CANDIDATES}
            errors = differences(calls)
            seconds = measure_times(calls, args.rounds)
            rows.append(
                {
                    "frames": frames,
                    "pass": mode,
                    "milliseconds": {k: round(1e3 * v, 3) for k, v in seconds.items()},
                    "added_mib": {
                        name: round(memory_in_a_fresh_process(name, mode, frames, args) / 2**20, 1)
                        for name in CANDIDATES
                    },
                    "difference_to_reference": errors,
                }
            )
            print(f"{frames} frames, {mode}: {rows[-1]['milliseconds']} ms", flush=True)
    print(table(rows))
    worst = max(max(row["difference_to_reference"].values()) for row in rows)
    print(f"largest difference to the reference: {worst:.2g} of the largest magnitude")
    if args.json:
        result = {
            "size": args.size,
            "kernel_size": args.kernel,
            "rounds": args.rounds,
            "rows": rows,
            "cpus": len(os.sched_getaffinity(0)),
            "machine": platform.processor() or platform.machine(),
            "date": time.strftime("%Y-%m-%d"),
            "versions": {
                name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "torch")
            },
        }
        write_atomically(args.json, json.dumps(result, indent=2) + "\n")
    return int(worst > AGREEMENT)


if __name__ == "__main__":
    sys.exit(main())
