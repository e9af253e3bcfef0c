"""Products and convolutions on a CPU as XLA chooses the library and as we do, side by side.

    python -m benchmarks.cpu_libraries --json RESULT.json

What stands behind `glfa_jax.training.cpu_libraries`, in float32. A time is the median over rounds
in which all take turns; results must agree to `AGREEMENT`.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measuring import median_seconds, parser, table, write_result
from glfa_jax.ops.attention_einsum import attend
from glfa_jax.training.cpu_libraries import compiler_options

AGREEMENT = 1e-4  # of the largest magnitude


class Case(NamedTuple):
    """An operation and the shapes of what it is given."""

    run: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]


def _convolution(x: Any, kernel: Any) -> Any:
    laid = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=laid)


def _attention_gradient(query: Any, key: Any, value: Any, g: Any) -> Any:
    return jax.vjp(lambda *x: attend(*x, None), query, key, value)[1](g)


def _attention(length: int, sequences: int) -> tuple[tuple[int, ...], ...]:
    return ((sequences, length, 4, 16),) * 4


CASES = {
    "convolution, 8 frames of 128 x 128, 48 to 16 channels": Case(
        _convolution, ((8, 128, 128, 48), (3, 3, 48, 16))
    ),
    "convolution, 8 frames of 64 x 64, 96 to 32 channels": Case(
        _convolution, ((8, 64, 64, 96), (3, 3, 96, 32))
    ),
    "product, 1024 rows, 256 to 1024": Case(jnp.matmul, ((1024, 256), (256, 1024))),
    "gradient of attention, 8 sequences of 256": Case(_attention_gradient, _attention(256, 8)),
    "gradient of attention, 2048 sequences of 4": Case(_attention_gradient, _attention(4, 2048)),
}
CHOICES = {
    "XLA's": lambda program: {},
    "Eigen": lambda program: compiler_options(jax.default_backend()),
    "ours": lambda program: compiler_options(jax.default_backend(), program),
}


def compare(case: Case, *, rounds: int) -> dict[str, float]:
    """Seconds by choice; ends the program where results differ."""
    rng = np.random.default_rng(0)
    given = [jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in case.shapes]
    traced = jax.jit(case.run).trace(*given)
    calls, found = {}, {}
    for name, options in CHOICES.items():
        program = traced.lower().compile(compiler_options=options(traced.jaxpr))
        calls[name] = partial(lambda run: jax.block_until_ready(run(*given)), program)
        found[name] = np.concatenate([np.ravel(x) for x in jax.tree.leaves(program(*given))])
    wanted = found["XLA's"]
    for name, result in found.items():
        if not np.abs(result - wanted).max() < AGREEMENT * np.abs(wanted).max():
            sys.exit(f"results of {name} differ from those of XLA's choice")
    return median_seconds(calls, rounds=rounds)


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser(__doc__, rounds=15).parse_args(arguments)
    if jax.default_backend() != "cpu":
        sys.exit("this benchmark compares libraries of CPUs: set JAX_PLATFORMS=cpu")
    rows = {name: compare(case, rounds=args.rounds) for name, case in CASES.items()}
    lines = []
    for name, row in rows.items():
        share = row["ours"] / row["XLA's"]
        lines.append([name, *(f"{1000 * x:.2f} ms" for x in row.values()), f"{share:.2f}"])
    print(table(["", *CHOICES, "ours / XLA's"], lines))
    write_result(args.json, {"seconds": rows, "rounds": args.rounds}, packages=("jax", "jaxlib"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
