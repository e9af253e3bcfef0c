"""Building blocks shared by all models: attention, norms and activation with PyTorch's numbers."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

# PyTorch's GELU is the exact one; JAX approximates by default.
gelu = partial(jax.nn.gelu, approximate=False)


def attention(
    query: Float[Array, "*b q h d"],
    key: Float[Array, "*b k h d"],
    value: Float[Array, "*b k h d"],
    *,
    mask: Bool[Array, "..."] | None = None,
    dropout: Callable[[Array], Array] | None = None,
) -> Float[Array, "*b q h d"]:
    """Scaled dot-product attention; the softmax is computed in float32 whatever the inputs are.

    `mask` broadcasts to (*b, h, q, k) and is true where a key may be seen; `dropout` is applied to
    the attention weights.
    """
    scores = jnp.einsum("...qhd,...khd->...hqk", query, key, preferred_element_type=jnp.float32)
    scores = scores * query.shape[-1] ** -0.5
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    if dropout is not None:
        weights = dropout(weights)
    return jnp.einsum("...hqk,...khd->...qhd", weights, value)


def split_heads(x: Float[Array, "*b n d"], num_heads: int) -> Float[Array, "*b n h e"]:
    """Cuts the last axis into heads, the head index varying slowest, as PyTorch code does."""
    return x.reshape(*x.shape[:-1], num_heads, x.shape[-1] // num_heads)


def merge_heads(x: Float[Array, "*b n h e"]) -> Float[Array, "*b n d"]:
    """Inverse of `split_heads`."""
    return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])


class LayerNorm(nn.LayerNorm):
    """Linen's LayerNorm whose epsilon must be written at every use; statistics in float32."""

    epsilon: float = None  # type: ignore[assignment]
    use_fast_variance: bool = False


class GroupNorm(nn.Module):
    """PyTorch's GroupNorm over the `pooled` axes before the channels; statistics in float32.

    Pools positions first and channels of a group second: on XLA:CPU 2.5 to 4 times as fast as
    linen's, which reduces over both at once along a split minor axis.
    """

    num_groups: int
    epsilon: float
    pooled: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        channels = x.shape[-1]
        if channels % self.num_groups:
            raise ValueError(
                f"GroupNorm {self.name}: {channels} channels are no multiple of the number of "
                f"groups {self.num_groups}"
            )
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        axes = tuple(range(x.ndim - 1 - self.pooled, x.ndim - 1))

        def mean(y: Array) -> Array:
            y = y.mean(axes, keepdims=True)
            groups = split_heads(y, self.num_groups)
            return merge_heads(jnp.broadcast_to(groups.mean(-1, keepdims=True), groups.shape))

        x = x.astype(jnp.float32)
        x = x - mean(x)
        x = x * (jax.lax.rsqrt(mean(jnp.square(x)) + self.epsilon) * scale) + bias
        return x.astype(self.dtype)
