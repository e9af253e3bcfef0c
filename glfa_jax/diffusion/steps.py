"""The walk from noise to a clean latent as a table of numbers.

Every sampler here is linear in what is known at a step, so a table of coefficients, computed once
in float64, is all that distinguishes them: a step first reads the clean latent off the prediction,
    clean = a·x + b·prediction,
then moves on with it and with the clean latent of the step before,
    x ← c·x + d·clean + e·clean_before.
A corrector (UniPC) first takes the last move again, now that its end is known: from where it
started, with the clean latents there, one step earlier, and here,
    x ← f·x + g·start + h·clean + i·clean_before + j·clean_earlier.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

Denoiser = Callable[[Float[Array, "*x"], Num[Array, ""]], Float[Array, "*x"]]
Column = Float[Array | np.ndarray, " n"]


class Correction(NamedTuple):
    """f to j above, one row per sampling step."""

    x: Column
    start: Column
    clean: Column
    clean_before: Column
    clean_earlier: Column


class Steps(NamedTuple):
    """One row per sampling step: the training step it sits at, and the coefficients a to e."""

    t: Num[Array | np.ndarray, " n"]
    clean_from_x: Column
    clean_from_prediction: Column
    x: Column
    clean: Column
    clean_before: Column
    correction: Correction | None = None


def walk(denoise: Denoiser, noise: Float[Array, "*x"], steps: Steps) -> Float[Array, "*x"]:
    """Turns standard normal noise into a latent, in float32, as one scan over the table."""
    first = noise.astype(jnp.float32)

    def step(carry: tuple[Array, ...], row: Any) -> tuple[tuple[Array, ...], None]:
        x, start, clean_before, clean_earlier = carry
        prediction = denoise(x, row.t).astype(jnp.float32)
        clean = row.clean_from_x * x + row.clean_from_prediction * prediction
        if (again := row.correction) is not None:
            x = again.x * x + again.start * start + again.clean * clean
            x += again.clean_before * clean_before + again.clean_earlier * clean_earlier
        onwards = row.x * x + row.clean * clean + row.clean_before * clean_before
        return (onwards, x, clean, clean_before), None

    # Nothing precedes the first step, and its coefficients are zero.
    none = jnp.zeros_like(first)
    (x, *_), _ = jax.lax.scan(step, (first, none, none, none), jax.tree.map(_to_device, steps))
    return x


def _to_device(column: np.ndarray) -> Array:
    return jnp.asarray(column, jnp.int32 if column.dtype.kind == "i" else jnp.float32)
