"""The local layer's implementations side by side: time, memory and agreement.

    python -m benchmarks.local_conv --json benchmarks/results/local_conv_cpu.json

Candidates: `reference` (lax.conv_general_dilated_local), `tiled` (portable, what the models use on
CPU), on a GPU or TPU `kernel` (what they use there), and `torch`, the usual PyTorch formulation
written from the formula: every neighbourhood unfolded, times the weights, summed. All take turns
within every round; a time is the median over rounds. Memory is what one call adds, results
included: on CPU to the peak of a fresh process, on a device as its runtime counts it. On a device
a time is that of one call in a chain of calls, each fed with the results of the one before, and the
table adds the share of the roofline: the time in which the memory could pass every array once.
At the published size and 80 frames the slow ones want 12 GB and up to a minute a call. Prints a
table; fails where results disagree.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.measuring import (
    added_memory,
    in_own_process,
    median_seconds,
    parser,
    table,
    write_result,
)
from glfa_jax.ops.local_conv import local_conv

ON_CPU = jax.default_backend() == "cpu"
CANDIDATES = ("reference", "tiled", *(() if ON_CPU else ("kernel",)), "torch")
OURS = "tiled" if ON_CPU else "kernel"
CHAIN = 1 if ON_CPU else 20  # calls of one measurement
BANDWIDTH = {"H100": 3.35e12, "H200": 4.8e12, "A100": 2.04e12, "v5 lite": 0.82e12}  # bytes/s
MODES = ("forward", "forward+backward")
AGREEMENT = 1e-5  # of the largest magnitude

Call = Callable[[], tuple[Any, ...]]  # y; or y, dx, dtheta


class Candidate(NamedTuple):
    call: Call
    chain: Call  # CHAIN calls that depend on one another
    added_bytes: Callable[[], int]  # of one call


def make_inputs(frames: int, size: int, kernel_size: int) -> dict[str, np.ndarray]:
    """Maps with a background of zeros, weights as after some training, a cotangent."""
    rng = np.random.default_rng(0)
    row, column = np.mgrid[:size, :size] / size - 0.5
    mask = (row / 0.5) ** 2 + (column / 0.45) ** 2 < 1
    x = rng.standard_normal((frames, size, size), np.float32) * mask
    theta = 0.05 * rng.standard_normal((kernel_size**2, size, size), np.float32)
    cotangent = rng.standard_normal(x.shape, np.float32)
    return {"x": x, "theta": theta, "cotangent": cotangent}


def in_jax(
    implementation: Any, mode: str, inputs: dict[str, np.ndarray], kernel_size: int
) -> Candidate:
    """Compiled; a call returns when its results are there."""
    layer = partial(local_conv, kernel_size=kernel_size, implementation=implementation)

    def run(x: jax.Array, theta: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, ...]:
        if mode == "forward":
            return (layer(x, theta),)
        y, pull = jax.vjp(layer, x, theta)
        return (y, *pull(cotangent))

    def chain(x: jax.Array, theta: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, ...]:
        if mode == "forward":
            return (lax.fori_loop(0, CHAIN, lambda _, y: layer(y, theta), x),)

        def step(_: Any, last: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            return run(last[0], theta, last[1])

        return lax.fori_loop(0, CHAIN, step, (x, cotangent, jnp.zeros_like(theta)))

    arrays = [jnp.asarray(inputs[name]) for name in ("x", "theta", "cotangent")]

    def again(results: tuple[jax.Array, ...], *arrays: jax.Array) -> tuple[jax.Array, ...]:
        """Into the memory of earlier results, as a training step would; fresh pages cost much."""
        return run(*arrays)

    reusing = jax.jit(again, donate_argnums=0, keep_unused=True)
    kept = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(run, *arrays))
    once = reusing.lower(kept, *arrays).compile()

    def call() -> tuple[jax.Array, ...]:
        nonlocal kept
        kept = jax.block_until_ready(once(kept, *arrays))
        return kept

    if ON_CPU:
        fresh = jax.jit(run).lower(*arrays).compile()
        return Candidate(
            call, call, lambda: added_memory(lambda: jax.block_until_ready(fresh(*arrays)))
        )
    needs: Any = jax.jit(run).lower(*arrays).compile().memory_analysis()
    many = jax.jit(chain).lower(*arrays).compile()
    return Candidate(
        call,
        lambda: jax.block_until_ready(many(*arrays)),
        lambda: needs.temp_size_in_bytes + needs.output_size_in_bytes,
    )


def in_torch(mode: str, inputs: dict[str, np.ndarray], kernel_size: int) -> Candidate:
    import torch
    import torch.nn.functional as F

    device = "cpu" if ON_CPU else "cuda"
    x = torch.from_numpy(inputs["x"]).to(device)
    # PyTorch's layer keeps a pixel's taps together.
    theta = torch.from_numpy(np.ascontiguousarray(inputs["theta"].transpose(1, 2, 0))).to(device)
    cotangent = torch.from_numpy(inputs["cotangent"]).to(device)
    half = kernel_size // 2
    identity = torch.zeros(kernel_size**2, device=device)
    identity[kernel_size**2 // 2] = 1

    def layer(x: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
        weights = (identity + theta).abs()
        weights = weights / weights.sum(-1, keepdim=True)
        around = F.pad(x, (half,) * 4).unfold(1, kernel_size, 1).unfold(2, kernel_size, 1)
        return (around.flatten(3) * weights).sum(-1) * (x != 0)

    def run() -> tuple[torch.Tensor, ...]:
        if mode == "forward":
            with torch.no_grad():
                return (layer(x, theta),)
        leaves = x.clone().requires_grad_(), theta.detach().requires_grad_()
        y = layer(*leaves)
        dx, dtheta = torch.autograd.grad(y, leaves, cotangent)
        return y.detach(), dx, dtheta.permute(2, 0, 1)

    def chain() -> tuple[torch.Tensor, ...]:
        for _ in range(CHAIN):
            found = run()
        if not ON_CPU:
            torch.cuda.synchronize()
        return found

    def added() -> int:
        if ON_CPU:
            return added_memory(run)
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated() - before

    return Candidate(lambda: tuple(array.cpu().numpy() for array in run()), chain, added)


def prepare(name: str, mode: str, inputs: dict[str, np.ndarray], kernel_size: int) -> Candidate:
    if name == "torch":
        return in_torch(mode, inputs, kernel_size)
    return in_jax(name, mode, inputs, kernel_size)


def measure_times(candidates: dict[str, Candidate], rounds: int) -> dict[str, float]:
    """Median seconds of one call of each."""
    chains = {name: candidate.chain for name, candidate in candidates.items()}
    calls = {name: candidate.call for name, candidate in candidates.items()}
    seconds = median_seconds(chains, rounds=rounds, before=calls)
    return {name: value / CHAIN for name, value in seconds.items()}


def differences(candidates: dict[str, Candidate]) -> dict[str, float]:
    """Largest difference of each to the reference, relative to the largest magnitude."""
    results = {name: [np.array(array) for array in c.call()] for name, c in candidates.items()}
    expected = results.pop("reference")
    return {
        name: max(
            float(np.abs(ours - wanted).max() / np.abs(wanted).max())
            for ours, wanted in zip(found, expected, strict=True)
        )
        for name, found in results.items()
    }


def memory_of(
    name: str, mode: str, frames: int, candidate: Candidate, args: argparse.Namespace
) -> int:
    if not ON_CPU:
        return candidate.added_bytes()
    sizes = ["--frames", frames, "--size", args.size, "--kernel", args.kernel]
    return in_own_process("benchmarks.local_conv", "--memory-of", name, mode, *sizes)


def roofline_seconds(mode: str, inputs: dict[str, np.ndarray]) -> float | None:
    """In which the device's memory passes every array once."""
    kind = jax.devices()[0].device_kind
    rate = next((rate for name, rate in BANDWIDTH.items() if name in kind), None)
    maps, weights = inputs["x"].nbytes, inputs["theta"].nbytes
    passed = weights + 2 * maps  # theta, x; y
    if mode != "forward":
        passed += 2 * weights + 4 * maps  # theta, x, y, g; dx, dtheta
    return passed / rate if rate else None


def shown(rows: list[dict[str, Any]]) -> str:
    head = ["frames", "pass", *(f"{name}, ms" for name in CANDIDATES)]
    head += ["faster than reference", "than torch", *(f"{name}, MiB" for name in CANDIDATES)]
    head += [] if ON_CPU else ["of the roofline"]
    lines = []
    for row in rows:
        ms, mib = row["milliseconds"], row["added_mib"]
        cells = [str(row["frames"]), row["pass"], *(f"{ms[name]:.3g}" for name in CANDIDATES)]
        cells += [f"{ms[name] / ms[OURS]:.3g}x" for name in ("reference", "torch")]
        cells += [f"{mib[name]:.0f}" for name in CANDIDATES]
        share = row["roofline_share"]
        cells += [] if ON_CPU else ["" if share is None else f"{share:.0%}"]
        lines.append(cells)
    return table(head, lines)


def parse() -> argparse.Namespace:
    made = parser(__doc__, rounds=5)
    made.add_argument("--frames", type=int, nargs="+", default=[1, 10, 40, 80])
    made.add_argument("--size", type=int, default=256)
    made.add_argument("--kernel", type=int, default=13)
    made.add_argument("--memory-of", nargs=2, metavar=("CANDIDATE", "PASS"), help="internal")
    return made.parse_args()


def main() -> int:
    args = parse()
    if args.memory_of:
        name, mode = args.memory_of
        inputs = make_inputs(args.frames[0], args.size, args.kernel)
        print(prepare(name, mode, inputs, args.kernel).added_bytes())
        return 0
    rows = []
    for frames in args.frames:
        inputs = make_inputs(frames, args.size, args.kernel)
        for mode in MODES:
            candidates = {name: prepare(name, mode, inputs, args.kernel) for name in CANDIDATES}
            errors = differences(candidates)
            seconds = measure_times(candidates, args.rounds)
            floor = roofline_seconds(mode, inputs)
            rows.append(
                {
                    "frames": frames,
                    "pass": mode,
                    "milliseconds": {name: round(1e3 * s, 4) for name, s in seconds.items()},
                    "added_mib": {
                        name: round(memory_of(name, mode, frames, candidate, args) / 2**20, 1)
                        for name, candidate in candidates.items()
                    },
                    "roofline_share": floor and floor / seconds[OURS],
                    "difference_to_reference": errors,
                }
            )
            print(f"{frames} frames, {mode}: {rows[-1]['milliseconds']} ms", flush=True)
    print(shown(rows))
    worst = max(max(row["difference_to_reference"].values()) for row in rows)
    print(f"largest difference to the reference: {worst:.2g} of the largest magnitude")
    result = {
        "size": args.size,
        "kernel_size": args.kernel,
        "rounds": args.rounds,
        "rows": rows,
    }
    write_result(args.json, result, packages=("jax", "jaxlib", "torch"))
    return int(worst > AGREEMENT)


if __name__ == "__main__":
    sys.exit(main())
