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


class Moves(NamedTuple):
    """stride: of the half log-SNR. reach: 1 − exp(−stride) of the way to the clean latent, times
    the signal there. The others: c to e above, one row per sampling step.
    """

    stride: Float[np.ndarray, " n"]
    reach: Float[np.ndarray, " n"]
    x: Float[np.ndarray, " n"]
    clean: Float[np.ndarray, " n"]
    clean_before: Float[np.ndarray, " n"]


def multistep(signal: np.ndarray, noise: np.ndarray, *, second_order: np.ndarray) -> Moves:
    """Exponential integration between the visited shares of signal and noise, one more than steps.

    second_order: steps, never the first, that go on along the slope of the last two clean latents;
    the others take the clean latent as it is (DPM-Solver++(2M), midpoint; UniPC's predictor).
    """
    with np.errstate(divide="ignore"):
        half_log_snr = np.log(signal) - np.log(noise)  # infinite where no noise is left
    stride = np.diff(half_log_snr)
    reach = -signal[1:] * np.expm1(-stride)
    # Half the slope between the last two clean latents, in units of this stride.
    lean = np.zeros(len(stride))
    inner = np.flatnonzero(second_order)
    lean[inner] = 0.5 * stride[inner] / stride[inner - 1]
    return Moves(stride, reach, noise[1:] / noise[:-1], reach * (1 + lean), -reach * lean)


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
