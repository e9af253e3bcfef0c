"""Attention as two matrix products around a softmax: on every device, for every shape.

Holds all scores of a layer while it computes, and none of them for the backward pass.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name

# The name of what is kept where layers are computed anew in the backward pass.
KEPT = "kept"


def scores_of(query: Array, key: Array, mask: Array | None) -> Array:
    """(*b, h, q, k) in float32: query · key / sqrt(width), hardly above -inf where masked."""
    scores = jnp.einsum("...qhd,...khd->...hqk", query, key, preferred_element_type=jnp.float32)
    scores = scores * query.shape[-1] ** -0.5
    return scores if mask is None else jnp.where(mask, scores, jnp.finfo(jnp.float32).min)


@jax.custom_vjp
def attend(query: Array, key: Array, value: Array, mask: Array | None) -> Array:
    """Softmax whose denominator divides last, where there is less to divide than weights.

    Its gradient computes the weights anew from queries and keys: of what grows with q x k nothing
    waits for the backward pass. Nearly twice as fast on XLA:CPU as differentiating through softmax.
    """
    return _forward(query, key, value, mask)[0]


def _forward(query: Array, key: Array, value: Array, mask: Array | None) -> tuple:
    scores = scores_of(query, key, mask)
    most = scores.max(-1, keepdims=True)
    weights = jnp.exp(scores - most)
    share = 1 / weights.sum(-1, keepdims=True)
    y = jnp.einsum(
        "...hqk,...khd->...hqd",
        weights.astype(value.dtype),
        value,
        preferred_element_type=jnp.float32,
    )
    y = jnp.moveaxis(y * share, -3, -2).astype(value.dtype)
    y, most, share = (checkpoint_name(x, KEPT) for x in (y, most, share))
    return y, (query, key, value, mask, most, share, y)


def _backward(kept: tuple, g: Array) -> tuple:
    query, key, value, mask, most, share, y = kept
    weights = jnp.exp(scores_of(query, key, mask) - most) * share
    of_weights = jnp.einsum("...qhd,...khd->...hqk", g, value, preferred_element_type=jnp.float32)
    inner = (g.astype(jnp.float32) * y).sum(-1, keepdims=True)
    of_scores = weights * (of_weights - jnp.moveaxis(inner, -2, -3))
    if mask is not None:
        of_scores = jnp.where(mask, of_scores, 0.0)
    of_scores = (of_scores * query.shape[-1] ** -0.5).astype(query.dtype)
    return (
        jnp.einsum("...hqk,...khd->...qhd", of_scores, key),
        jnp.einsum("...hqk,...qhd->...khd", of_scores, query),
        jnp.einsum("...hqk,...qhd->...khd", weights.astype(value.dtype), g),
        None,
    )


attend.defvjp(_forward, _backward)
