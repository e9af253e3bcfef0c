"""Optimal transport of the pixels of every cell."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Bool, Float

from glfa_jax.alignments.cells import CellAlignment
from glfa_jax.alignments.registry import register

ITERATIONS = 100


@register("transport")
@dataclass(frozen=True)
class Transport(CellAlignment):
    """y_p = g_p sum_q x_q P_qp / sum_q P_qp, P the optimal transport of a cell's pixels.

    P carries the same weight from every pixel q of the subject to every pixel p of the targets at
    the least sum_qp P_qp (C_qp + s log P_qp); C_qp is half the mean squared difference of their
    time courses, standardised, plus `nearness` times the squared distance of the pixels in sides of
    a cell. Source: Bazeille et al. (2019); Sinkhorn's algorithm.
    """

    nearness: float = 0.0

    strengths: ClassVar[tuple[float, ...]] = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02)

    def mix(self, own, *, targets, inside, strength):
        return _plans(own, targets, inside, strength, self.nearness)


@jax.jit
def _plans(own, targets, inside, strength, nearness):
    side = round(own.shape[-1] ** 0.5)
    row, column = np.indices((side, side)).reshape(2, -1) / side
    distance = (row[:, None] - row) ** 2 + (column[:, None] - column) ** 2
    # Standardised courses: half their mean squared difference is 1 less their correlation.
    alike = jnp.einsum("ntq,ntp->nqp", own, targets) / own.shape[1]
    return jax.vmap(transported, in_axes=(0, 0, None))(
        1 - alike + nearness * distance, inside, strength
    )


def transported(
    cost: Float[Array, "c c"], inside: Bool[Array, " c"], strength: Float[Array, ""]
) -> Float[Array, "c c"]:
    """The plan by which pixels inside go to pixels inside, whose columns sum to 1.

    Sinkhorn's algorithm in logarithms, so that a small strength does not underflow.
    """
    weight = jnp.where(inside[:, None] & inside, -cost / strength, -jnp.inf)

    def step(_: Array, scales: tuple[Array, Array]) -> tuple[Array, Array]:
        rows = jnp.where(inside, -logsumexp(weight + scales[1], axis=1), 0)
        return rows, jnp.where(inside, -logsumexp(weight + rows[:, None], axis=0), 0)

    empty = jnp.zeros(len(cost))
    rows, columns = jax.lax.fori_loop(0, ITERATIONS, step, (empty, empty))
    return jnp.exp(weight + rows[:, None] + columns)
