"""Parts of Wan's autoencoder, for videos that pass through in pieces, and how they pass.

The first piece of a clip is its first frame alone; the others hold equally many frames each. What
a layer must know of the pieces before, it leaves in the variable collection "past", which
`streamed` hands from piece to piece. A layer without a past is at the first piece.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from glfa_jax.models.convolution import conv3x3, downsample
from glfa_jax.models.mesh_axes import shard
from glfa_jax.models.unet3d_blocks import upsample
from glfa_jax.ops.attention import attention

TAPS = 3  # of every convolution over time


def streamed(
    network: nn.Module, x: Float[Array, "b f h w c"], *, piece: int, gives: int
) -> Float[Array, "b g k l m"]:
    """Applies a bound module to a clip's first frame, then to `piece` frames at a time in a loop,
    of which it makes `gives`.

    Memory holds one piece and the pasts of the layers, however long the clip is.
    """
    (b, f), frame = x.shape[:2], x.shape[2:]
    if network.is_initializing():  # the first piece has no use for some layers
        return network(jnp.zeros((b, piece, *frame), x.dtype))
    params = network.variables["params"]
    detached = network.clone(parent=None, name=None)

    def run(frames: Array, past: dict) -> tuple[Any, Any]:
        return detached.apply({"params": params, **past}, frames, mutable=["past"])

    first, past = run(x[:, :1], {})
    if f == 1:
        return first
    if f == 1 + piece:  # needs no loop, in which XLA:CPU takes very long for gradients
        return jnp.concatenate([first, run(x[:, 1:], past)[0]], axis=1)

    def body(carried: tuple[Array, Any], i: Array) -> tuple[tuple[Array, Any], None]:
        y, past = carried
        frames = jax.lax.dynamic_slice_in_dim(x, 1 + i * piece, piece, axis=1)
        made, past = run(frames, past)
        return (jax.lax.dynamic_update_slice_in_dim(y, made, 1 + i * gives, axis=1), past), None

    # What each piece gives is put where it belongs: collected by the loop, all would be copied.
    pieces = (f - 1) // piece
    y = jnp.zeros((b, 1 + pieces * gives, *first.shape[2:]), first.dtype).at[:, :1].set(first)
    return jax.lax.scan(body, (y, past), jnp.arange(pieces))[0][0]


def _past(layer: nn.Module) -> Array | None:
    """The frames that a layer left of the pieces before; None at the first."""
    return layer.get_variable("past", "frames")


def _leave(layer: nn.Module, frames: Float[Array, "b f h w c"]) -> None:
    if not layer.is_initializing():
        layer.put_variable("past", "frames", frames)


def _is_first(layer: nn.Module) -> bool:
    """Whether this is the first piece; nothing is while parameters are made, so that all are."""
    return not layer.is_initializing() and _past(layer) is None


def _blank(x: Float[Array, "b f h w c"], frames: int) -> Float[Array, "b g h w c"]:
    return jnp.zeros((x.shape[0], frames, *x.shape[2:]), x.dtype)


class TimeConv(nn.Module):
    """A convolution over time and `size` x `size` pixels, padded in space alone.

    As one over images, the frames that a tap each sees side by side along the channels: on XLA:CPU
    in half the time of a convolution over three axes.
    """

    channels: int
    size: int = 3
    stride: int = 1  # in time
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b f h w c"], *, taps: int = TAPS) -> Float[Array, "*y"]:
        """`taps`: how many of the last ones are used; those before see nothing but zeros."""
        b, f, h, w, c = x.shape
        shape = (TAPS, self.size, self.size, c, self.channels)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        frames = (f - taps) // self.stride + 1
        seen = [x[:, i : i + f - taps + 1 : self.stride] for i in range(taps)]
        y = jax.lax.conv_general_dilated(
            jnp.concatenate(seen, axis=-1).reshape(b * frames, h, w, taps * c),
            kernel[-taps:].transpose(1, 2, 0, 3, 4).reshape(self.size, self.size, taps * c, -1),
            window_strides=(1, 1),
            padding="SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return (y + bias).reshape(b, frames, h, w, self.channels)


class CausalConv(TimeConv):
    """The same of every frame and the two before it; before a clip all is zero."""

    def __call__(self, x: Float[Array, "b f h w c"]) -> Float[Array, "b f h w k"]:
        lone = _is_first(self) and x.shape[1] == 1
        past = _past(self)
        seen = jnp.concatenate([_blank(x, TAPS - 1) if past is None else past, x], axis=1)
        _leave(self, seen[:, 1 - TAPS :])
        return super().__call__(x, taps=1) if lone else super().__call__(seen)


class ChannelNorm(nn.Module):
    """Divides by the root mean square over the channels, which is at least 1e-12 / sqrt(c);
    in float32."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        channels = x.shape[-1]
        gamma = self.param("gamma", nn.initializers.ones, (channels,))
        x = x.astype(jnp.float32)
        squares = jnp.square(x).sum(-1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))
        return (x * (gamma * channels**0.5)).astype(self.dtype)


class ResidualBlock(nn.Module):
    """Norm, activation and convolution, twice, added to the input."""

    channels: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b f h w c"]) -> Float[Array, "b f h w k"]:
        y = x
        for i in (1, 2):
            y = nn.silu(ChannelNorm(dtype=self.dtype, name=f"norm{i}")(y))
            y = CausalConv(self.channels, dtype=self.dtype, name=f"conv{i}")(y)
        if x.shape[-1] != self.channels:
            x = nn.Dense(self.channels, dtype=self.dtype, name="conv_shortcut")(x)
        return shard(x + y)


class AttentionBlock(nn.Module):
    """Adds attention of every frame to itself, one head as wide as the channels."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b f h w c"]) -> Float[Array, "b f h w c"]:
        b, f, h, w, c = x.shape
        y = ChannelNorm(dtype=self.dtype, name="norm")(x).reshape(b, f, h * w, c)
        y = nn.Dense(3 * c, dtype=self.dtype, name="to_qkv")(y)
        query, key, value = jnp.split(y[..., None, :], 3, axis=-1)
        y = attention(query, key, value).reshape(x.shape)
        return x + nn.Dense(c, dtype=self.dtype, name="proj")(y)


class MidBlock(nn.Module):
    """Residual, attention, residual at the coarsest resolution."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b f h w c"]) -> Float[Array, "b f h w c"]:
        x = ResidualBlock(x.shape[-1], dtype=self.dtype, name="resnets.0")(x)
        x = AttentionBlock(dtype=self.dtype, name="attentions.0")(x)
        return ResidualBlock(x.shape[-1], dtype=self.dtype, name="resnets.1")(x)


class Downsample(nn.Module):
    """Halves height and width, padded below and right, and the frames after the first if wanted.

    A frame of the result is made of two and the one before them.
    """

    over_time: bool
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b f h w c"]) -> Float[Array, "b g k l c"]:
        channels = x.shape[-1]
        x = downsample(channels, padding=0, dtype=self.dtype, name="resample.1")(x)
        if not self.over_time:
            return x
        first, past = _is_first(self), _past(self)
        _leave(self, x[:, -1:])
        if first:
            return x
        seen = jnp.concatenate([_blank(x, 1) if past is None else past, x], axis=1)
        return TimeConv(channels, size=1, stride=2, dtype=self.dtype, name="time_conv")(seen)


class Upsample(nn.Module):
    """Doubles the frames after the first if wanted, then height and width; halves the channels.

    The frames that come of one are made of it and the two before it, but for the first.
    """

    over_time: bool
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b f h w c"]) -> Float[Array, "b g k l m"]:
        if self.over_time:
            x = self._double(x)
        x = upsample(x, size=(2 * x.shape[2], 2 * x.shape[3]))
        return conv3x3(x.shape[-1] // 2, dtype=self.dtype, name="resample.1")(x)

    def _double(self, x: Float[Array, "b f h w c"]) -> Float[Array, "b g h w c"]:
        b, f, h, w, c = x.shape
        past = _past(self)
        if _is_first(self):  # of which the others shall know nothing
            _leave(self, _blank(x, TAPS - 1))
            return x
        seen = jnp.concatenate([_blank(x, TAPS - 1) if past is None else past, x], axis=1)
        _leave(self, seen[:, 1 - TAPS :])
        pairs = TimeConv(2 * c, size=1, dtype=self.dtype, name="time_conv")(seen)
        pairs = jnp.moveaxis(pairs.reshape(b, f, h, w, 2, c), 4, 2)
        return pairs.reshape(b, 2 * f, h, w, c)
