"""What tests of gradients that are written by hand share."""

import jax
import jax.numpy as jnp
import numpy as np


def draw(*shapes: tuple[int, ...], dtype=jnp.float32) -> list[jax.Array]:
    rng = np.random.default_rng(0)
    return [jnp.asarray(2 * rng.standard_normal(shape), dtype) for shape in shapes]


def with_gradients(function, cotangent, *given):
    """The function and its gradients as one program: op by op, compiling takes most of the time."""

    def run(cotangent, *given):
        found, pull = jax.vjp(function, *given)
        return found, pull(cotangent)

    return jax.jit(run)(cotangent, *given)


def error(found, wanted) -> float:
    leaves = [[np.asarray(x, np.float32) for x in jax.tree.leaves(y)] for y in (found, wanted)]
    return max(float(np.abs(x - y).max() / np.abs(y).max()) for x, y in zip(*leaves, strict=True))
