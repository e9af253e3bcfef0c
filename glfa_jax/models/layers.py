"""Building blocks shared by all models: attention, norms and activation with PyTorch's numbers."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float


@jax.custom_jvp
def gelu(x: Float[Array, "*x"]) -> Float[Array, "*x"]:
    """x Φ(x), exact, through erf and in float32, as PyTorch does.

    JAX approximates by default, and its exact form is through erfc, which on XLA:CPU takes twice
    as long.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return (wide * _normal_share(wide)).astype(x.dtype)


@gelu.defjvp
def _gelu_jvp(given: tuple, tangents: tuple) -> tuple[Array, Array]:
    """Keeps one array for the backward pass, of the dtype of x."""
    (x,), (dx,) = given, tangents
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    density = jnp.exp(-0.5 * jnp.square(wide)) * (2 * jnp.pi) ** -0.5
    return gelu(x), (_normal_share(wide) + wide * density).astype(x.dtype) * dx


def _normal_share(x: Array) -> Array:
    """Φ(x), the share of a standard normal below x."""
    return 0.5 * (1 + jax.lax.erf(x * 0.5**0.5))


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
    if dropout is None:
        return _attend(query, key, value, mask)
    scores = _scores(query, key, mask)
    weights = dropout(jax.nn.softmax(scores, axis=-1).astype(value.dtype))
    return jnp.einsum("...hqk,...khd->...qhd", weights, value)


def _scores(query: Array, key: Array, mask: Array | None) -> Array:
    scores = jnp.einsum("...qhd,...khd->...hqk", query, key, preferred_element_type=jnp.float32)
    scores = scores * query.shape[-1] ** -0.5
    return scores if mask is None else jnp.where(mask, scores, jnp.finfo(jnp.float32).min)


@jax.custom_vjp
def _attend(query: Array, key: Array, value: Array, mask: Array | None) -> Array:
    """Softmax whose denominator divides last, where there is less to divide than weights.

    With this gradient nearly twice as fast on XLA:CPU as differentiating through softmax.
    """
    return _attend_forward(query, key, value, mask)[0]


def _attend_forward(query: Array, key: Array, value: Array, mask: Array | None) -> tuple:
    scores = _scores(query, key, mask)
    most = scores.max(-1, keepdims=True)
    weights = jnp.exp(scores - most)
    share = 1 / weights.sum(-1, keepdims=True)
    y = jnp.einsum(
        "...hqk,...khd->...hqd",
        weights.astype(value.dtype),
        value,
        preferred_element_type=jnp.float32,
    )
    y = y * share
    out = jnp.moveaxis(y, -3, -2).astype(value.dtype)
    return out, (query, key, value, mask, scores, most, share, y)


def _attend_backward(kept: tuple, g: Array) -> tuple:
    query, key, value, mask, scores, most, share, y = kept
    g = jnp.moveaxis(g, -2, -3)
    weights = jnp.exp(scores - most) * share
    of_weights = jnp.einsum("...hqd,...khd->...hqk", g, value, preferred_element_type=jnp.float32)
    inner = (g.astype(jnp.float32) * y).sum(-1, keepdims=True)
    of_scores = weights * (of_weights - inner)
    if mask is not None:
        of_scores = jnp.where(mask, of_scores, 0.0)
    of_scores = (of_scores * query.shape[-1] ** -0.5).astype(query.dtype)
    return (
        jnp.einsum("...hqk,...khd->...qhd", of_scores, key),
        jnp.einsum("...hqk,...qhd->...khd", of_scores, query),
        jnp.einsum("...hqk,...hqd->...khd", weights.astype(value.dtype), g),
        None,
    )


_attend.defvjp(_attend_forward, _attend_backward)


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
