"""Building blocks shared by all models: attention, norms and activation with PyTorch's numbers."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# PyTorch's GELU is the exact one; JAX approximates by default.
gelu = partial(jax.nn.gelu, approximate=False)


def attention(
    query: Float[Array, "*b q h d"],
    key: Float[Array, "*b k h d"],
    value: Float[Array, "*b k h d"],
    *,
    mask: Bool[Array, "..."] | None = None,
) -> Float[Array, "*b q h d"]:
    """Scaled dot-product attention; the softmax is computed in float32 whatever the inputs are.

    `mask` broadcasts to (*b, h, q, k) and is true where a key may be seen.
    """
    scores = jnp.einsum("...qhd,...khd->...hqk", query, key, preferred_element_type=jnp.float32)
    scores = scores * query.shape[-1] ** -0.5
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum("...hqk,...khd->...qhd", weights, value)


def split_heads(x: Float[Array, "*b n d"], num_heads: int) -> Float[Array, "*b n h e"]:
    """Cuts the last axis into heads, the head index varying slowest, as PyTorch code does."""
    return x.reshape(*x.shape[:-1], num_heads, x.shape[-1] // num_heads)


def merge_heads(x: Float[Array, "*b n h e"]) -> Float[Array, "*b n d"]:
    """Inverse of `split_heads`."""
    return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])


class LayerNorm(nn.LayerNorm):
    """Linen's LayerNorm with an epsilon that must be written at every use; statistics in float32."""

    epsilon: float = None  # type: ignore[assignment]
    use_fast_variance: bool = False


class GroupNorm(nn.GroupNorm):
    """Linen's GroupNorm, likewise."""

    epsilon: float = None  # type: ignore[assignment]
    use_fast_variance: bool = False
