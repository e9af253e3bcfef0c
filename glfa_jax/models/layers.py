"""Building blocks shared by all models: norms and activations with PyTorch's numbers."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num

from glfa_jax.models.mesh_axes import one_axis
from glfa_jax.ops.attention_einsum import KEPT

# What `remat` computes anew: all but the result of attention by einsum, which costs more than it
# weighs. What a fused kernel keeps for its gradient weighs more.
recompute = jax.checkpoint_policies.save_only_these_names(KEPT)


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


@jax.custom_jvp
def gelu_tanh(x: Float[Array, "*x"]) -> Float[Array, "*x"]:
    """x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2 in float32, also known as "gelu_new"."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return (0.5 * wide * (1 + _bend(wide))).astype(x.dtype)


@gelu_tanh.defjvp
def _gelu_tanh_jvp(given: tuple, tangents: tuple) -> tuple[Array, Array]:
    """As that of `gelu`."""
    (x,), (dx,) = given, tangents
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    bend = _bend(wide)
    steepness = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * wide**2)
    slope = 0.5 * (1 + bend + wide * (1 - bend**2) * steepness)
    return gelu_tanh(x), slope.astype(x.dtype) * dx


def _bend(x: Array) -> Array:
    return jnp.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))


def waves(timestep: Num[Array, " b"], width: int) -> Float[Array, "b d"]:
    """Cosines, then sines, of a time at `width` / 2 rates from 1 down to almost 1 / 10000.

    The rates are rounded as PyTorch rounds them: at a time of 1000 the last bit of a rate shows.
    """
    half = width // 2
    exponents = np.float32(-math.log(10000)) * np.arange(half, dtype=np.float32) / np.float32(half)
    rates = np.exp(exponents.astype(np.float64)).astype(np.float32)
    angles = timestep[:, None].astype(jnp.float32) * rates
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def split_heads(x: Float[Array, "*b n d"], num_heads: int) -> Float[Array, "*b n h e"]:
    """Cuts the last axis into heads, the head index varying slowest, as PyTorch code does."""
    return x.reshape(*x.shape[:-1], num_heads, x.shape[-1] // num_heads)


def merge_heads(x: Float[Array, "*b n h e"]) -> Float[Array, "*b n d"]:
    """Inverse of `split_heads`."""
    return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])


# What follows the name of a kernel in that of the low-rank update beside it.
DOWN, UP = "_down", "_up"


class Dense(nn.Dense):
    """Linen's, plus x · down · up where the parameters hold a low-rank update beside the kernel
    (`models.lora.beside`)."""

    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b d"]:
        rows = one_axis(x)
        y = super().__call__(rows)
        if self.has_variable("params", f"kernel{DOWN}"):
            update = (self.get_variable("params", f"kernel{part}") for part in (DOWN, UP))
            rows, down, up = promote_dtype(rows, *update, dtype=self.dtype)
            y = y + rows @ down @ up
        return y.reshape(*x.shape[:-1], self.features)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def normalised(x: Array, mean: Callable[[Array], Array], epsilon: float) -> Array:
    """(x - mean(x)) / sqrt(variance + epsilon), where `mean` averages over parts of the array.

    Its own gradient needs half the operations of the one that JAX derives.
    """
    return _normalised_forward(x, mean, epsilon)[0]


def _normalised_forward(x: Array, mean: Callable, epsilon: float) -> tuple:
    x = x - mean(x)
    inverse = jax.lax.rsqrt(mean(jnp.square(x)) + epsilon)
    y = x * inverse
    return y, (y, inverse)


def _normalised_backward(mean: Callable, epsilon: float, kept: tuple, g: Array) -> tuple[Array]:
    y, inverse = kept
    return (inverse * (g - mean(g) - y * mean(g * y)),)


normalised.defvjp(_normalised_forward, _normalised_backward)


def _mean_of_channels(x: Array) -> Array:
    return x.mean(-1, keepdims=True)


class LayerNorm(nn.Module):
    """Linen's LayerNorm whose epsilon must be written at every use; statistics in float32.

    affine: has a scale and a bias.
    """

    epsilon: float
    affine: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        y: Any = normalised(x.astype(jnp.float32), _mean_of_channels, self.epsilon)
        if self.affine:
            scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
            bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
            y = y * scale + bias
        return y.astype(self.dtype)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + epsilon), scaled (arXiv 1910.07467); statistics in float32."""

    epsilon: float
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        x = x.astype(jnp.float32)
        x = x * jax.lax.rsqrt(_mean_of_channels(jnp.square(x)) + self.epsilon)
        return (x * scale).astype(self.dtype)


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

        x = normalised(x.astype(jnp.float32), mean, self.epsilon)
        return (x * scale + bias).astype(self.dtype)
