"""Orthogonal alignment of the pixels of every cell."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from glfa_jax.alignments.cells import CellAlignment
from glfa_jax.alignments.registry import register

# Each takes a singular value of 1e-10 or more to half again as much, until it is 1.
ITERATIONS = 60


@register("procrustes")
@dataclass(frozen=True)
class Procrustes(CellAlignment):
    """y = g (x R), |Y - X R|^2 + s t |I - R|^2 least over orthogonal R, with t volumes as rows.

    R is the orthogonal factor of X'Y / t + s I. Its scale is that of every pixel, g. s shrinks
    towards the identity, for minutes of data are few. Source: hyperalignment (Haxby et al. 2011),
    piecewise as by Bazeille et al. (2021).
    """

    strengths: ClassVar[tuple[float, ...]] = tuple(float(x) for x in np.logspace(1.5, -2, 8))

    def mix(self, own, *, targets, inside, strength):
        shared = jnp.einsum("ntq,ntp->nqp", own, targets) / own.shape[1]
        return orthogonal_factor(shared + strength * jnp.eye(shared.shape[-1]))


@jax.jit
def orthogonal_factor(matrices: Float[Array, "n c c"]) -> Float[Array, "n c c"]:
    """U V' of the singular value decompositions U S V', by Newton-Schulz iteration.

    Products alone: many small decompositions, which LAPACK does one by one, take ten times as long.
    """

    def step(_: Array, x: Array) -> Array:
        return 1.5 * x - 0.5 * x @ (x.mT @ x)

    norm = jnp.linalg.norm(matrices, axis=(1, 2), keepdims=True)  # no singular value is larger
    return jax.lax.fori_loop(0, ITERATIONS, step, matrices / norm)
