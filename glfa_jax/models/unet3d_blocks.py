"""Parts of UNet3D: residual blocks, temporal convolutions, spatial and temporal transformers.

Frames stay on an axis of their own, (b, f, h, w, c), so what belongs to a clip (time embedding,
conditioning tokens) is computed once a clip and not once a frame.
"""

from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from glfa_jax.models.convolution import Conv, conv3x3, downsample
from glfa_jax.models.layers import (
    Dense,
    GroupNorm,
    LayerNorm,
    gelu,
    merge_heads,
    recompute,
    split_heads,
)
from glfa_jax.models.mesh_axes import shard, to_frames, to_pixels
from glfa_jax.ops.attention import attention


class Attention(nn.Module):
    """Multi-head attention whose query, key and value projections have no bias."""

    num_heads: int
    head_dim: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b n c"], *, context: Float[Array, "*b k d"]
    ) -> Float[Array, "*b n c"]:
        def project(y: Array, name: str) -> Array:
            width = self.num_heads * self.head_dim
            y = Dense(width, use_bias=False, dtype=self.dtype, name=name)(y)
            return split_heads(y, self.num_heads)

        y = attention(project(x, "to_q"), project(context, "to_k"), project(context, "to_v"))
        return Dense(x.shape[-1], dtype=self.dtype, name="to_out.0")(merge_heads(y))


class TransformerBlock(nn.Module):
    """Pre-norm self-attention, attention to `context` (to itself without), gated feed-forward."""

    num_heads: int
    head_dim: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b n c"], *, context: Float[Array, "*k d"] | None
    ) -> Float[Array, "*b n c"]:
        def norm(name: str) -> LayerNorm:
            return LayerNorm(epsilon=1e-5, dtype=self.dtype, name=name)

        def attend(name: str) -> Attention:
            return Attention(self.num_heads, self.head_dim, dtype=self.dtype, name=name)

        y = norm("norm1")(x)
        x = shard(x + attend("attn1")(y, context=y), over_frame=1)
        y = norm("norm2")(x)
        if context is None:
            y = attend("attn2")(y, context=y)
        else:
            # All frames of a clip see the same tokens: their queries form one long sequence.
            flat = y.reshape(y.shape[0], -1, y.shape[-1])
            y = attend("attn2")(flat, context=context).reshape(x.shape)
        x = shard(x + y, over_frame=1)
        y = norm("norm3")(x)
        y = nn.Dense(8 * x.shape[-1], dtype=self.dtype, name="ff.net.0.proj")(y)
        value, gate = jnp.split(y, 2, axis=-1)
        y = nn.Dense(x.shape[-1], dtype=self.dtype, name="ff.net.2")(value * gelu(gate))
        return shard(x + y, over_frame=1)


class SpatialTransformer(nn.Module):
    """Every frame attends to itself, then to the conditioning tokens."""

    head_dim: int
    norm_num_groups: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b f h w c"], conditioning: Float[Array, "b n d"]
    ) -> Float[Array, "b f h w c"]:
        b, f, h, w, c = x.shape
        heads = num_heads(c, head_dim=self.head_dim)
        y = GroupNorm(self.norm_num_groups, epsilon=1e-6, pooled=2, dtype=self.dtype, name="norm")(
            x
        )
        y = shard(y.reshape(b, f, h * w, c), over_frame=1)
        y = nn.Dense(heads * self.head_dim, dtype=self.dtype, name="proj_in")(y)
        y = TransformerBlock(heads, self.head_dim, dtype=self.dtype, name="transformer_blocks.0")(
            y, context=conditioning
        )
        y = nn.Dense(c, dtype=self.dtype, name="proj_out")(y)
        y = shard(y, over_frame=1).reshape(x.shape)
        return x + shard(y, over_frame=1)


class TemporalTransformer(nn.Module):
    """Every position attends twice to itself over the frames; never to the conditioning.

    Its last layer starts at zero, so that a new layer is the identity.
    """

    num_heads: int
    head_dim: int
    norm_num_groups: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b f h w c"]) -> Float[Array, "b f h w c"]:
        y = GroupNorm(self.norm_num_groups, epsilon=1e-6, pooled=3, dtype=self.dtype, name="norm")(
            x
        )
        y = to_pixels(y)
        y = nn.Dense(self.num_heads * self.head_dim, dtype=self.dtype, name="proj_in")(y)
        y = TransformerBlock(
            self.num_heads, self.head_dim, dtype=self.dtype, name="transformer_blocks.0"
        )(y, context=None)
        y = nn.Dense(
            x.shape[-1], dtype=self.dtype, kernel_init=nn.initializers.zeros, name="proj_out"
        )(y)
        return x + to_frames(y)


class TemporalConv(nn.Module):
    """Four norm-activation-convolution layers over time alone, added to the input.

    The last starts at zero, so that a new layer is the identity. What enters the convolutions but
    the first is dropped at the rate `dropout`, which is 0.1 in PyTorch's class while training (SPEC
    §3: whether that is meant is unknown).
    """

    norm_num_groups: int
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b f h w c"]) -> Float[Array, "b f h w c"]:
        # Frames next to channels make it a 1-D convolution: on XLA:CPU forward and backward take
        # 3 ms where three shifted products take 7 and a (3, 1, 1) convolution 12.
        y = to_pixels(x)
        # conv1 holds norm, activation, convolution; the others a dropout more.
        for name, index in (("conv1", 2), ("conv2", 3), ("conv3", 3), ("conv4", 3)):
            last = name == "conv4"
            y = GroupNorm(
                self.norm_num_groups, epsilon=1e-5, pooled=3, dtype=self.dtype, name=f"{name}.0"
            )(y)
            y = nn.silu(y)
            if self.dropout and index == 3:
                y = nn.Dropout(self.dropout, deterministic=False, name=f"{name}.2")(y)
            y = Conv(
                x.shape[-1],
                (3,),
                padding=1,
                dtype=self.dtype,
                kernel_init=nn.initializers.zeros if last else nn.initializers.lecun_normal(),
                name=f"{name}.{index}",
            )(y)
        return x + to_frames(y)


class ResnetBlock(nn.Module):
    """Two 3x3 convolutions around a time embedding (if any), added to the input."""

    channels: int
    norm_num_groups: int
    norm_eps: float
    scale_factor: float | int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b h w c"], time: Float[Array, "b d"] | None = None
    ) -> Float[Array, "*b h w k"]:
        def norm(name: str) -> GroupNorm:
            return GroupNorm(
                self.norm_num_groups, epsilon=self.norm_eps, pooled=2, dtype=self.dtype, name=name
            )

        y = conv3x3(self.channels, dtype=self.dtype, name="conv1")(nn.silu(norm("norm1")(x)))
        if time is not None:
            shift = nn.Dense(self.channels, dtype=self.dtype, name="time_emb_proj")(nn.silu(time))
            y = y + shift[:, None, None, None, :]
        y = conv3x3(self.channels, dtype=self.dtype, name="conv2")(nn.silu(norm("norm2")(y)))
        if x.shape[-1] != self.channels:
            x = nn.Dense(self.channels, dtype=self.dtype, name="conv_shortcut")(x)
        y = x + y
        if y.ndim == 5:  # with frames
            y = shard(y, over_frame=1)
        return y if self.scale_factor == 1 else y / self.scale_factor


Layer = Callable[[Array], Array]


def _identity(x: Array) -> Array:
    return x


@dataclass(frozen=True)
class Settings:
    """What all blocks of one UNet3D share, and how it makes their layers."""

    head_dim: int
    norm_num_groups: int
    norm_eps: float
    dtype: DTypeLike
    remat: bool
    over_time: bool  # with the layers that mix frames
    dropout: float  # in temporal convolutions

    def _make(self, module: type[nn.Module], *args: object, **fields: object) -> nn.Module:
        made = nn.remat(module, policy=recompute) if self.remat else module
        return made(*args, dtype=self.dtype, **fields)

    def resnet(self, index: int, *, channels: int, scale_factor: float | int = 1) -> nn.Module:
        return self._make(
            ResnetBlock,
            channels,
            norm_num_groups=self.norm_num_groups,
            norm_eps=self.norm_eps,
            scale_factor=scale_factor,
            name=f"resnets.{index}",
        )

    def temporal_conv(self, index: int) -> Layer:
        if not self.over_time:
            return _identity
        return self._make(
            TemporalConv, self.norm_num_groups, self.dropout, name=f"temp_convs.{index}"
        )

    def spatial(self, index: int) -> nn.Module:
        return self._make(
            SpatialTransformer, self.head_dim, self.norm_num_groups, name=f"attentions.{index}"
        )

    def temporal(self, name: str, *, heads: int) -> Layer:
        if not self.over_time:
            return _identity
        return self._make(
            TemporalTransformer, heads, self.head_dim, self.norm_num_groups, name=name
        )

    def attend(
        self, index: int, x: Float[Array, "b f h w c"], conditioning: Float[Array, "b n d"]
    ) -> Float[Array, "b f h w c"]:
        """In space, then in time."""
        heads = num_heads(x.shape[-1], head_dim=self.head_dim)
        x = self.spatial(index)(x, conditioning)
        return self.temporal(f"temp_attentions.{index}", heads=heads)(x)


class DownBlock(nn.Module):
    """Layers at one resolution, then a halving; returns also what the way up will need."""

    channels: int
    num_layers: int
    attends: bool
    padding: int | None  # of the halving convolution; None: no halving
    settings: Settings

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b f h w c"],
        *,
        time: Float[Array, "b e"],
        conditioning: Float[Array, "b n d"],
    ) -> tuple[Float[Array, "b f k l m"], list[Array]]:
        skips = []
        for i in range(self.num_layers):
            x = self.settings.resnet(i, channels=self.channels)(x, time)
            x = self.settings.temporal_conv(i)(x)
            if self.attends:
                x = self.settings.attend(i, x, conditioning)
            skips.append(x)
        if self.padding is not None:
            x = downsample(self.channels, padding=self.padding, dtype=self.settings.dtype)(x)
            skips.append(x)
        return x, skips


class MidBlock(nn.Module):
    """Residual, attention, residual at the coarsest resolution."""

    scale_factor: float | int
    settings: Settings

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b f h w c"],
        *,
        time: Float[Array, "b e"],
        conditioning: Float[Array, "b n d"],
    ) -> Float[Array, "b f h w c"]:
        for i in range(2):
            resnet = self.settings.resnet(i, channels=x.shape[-1], scale_factor=self.scale_factor)
            x = self.settings.temporal_conv(i)(resnet(x, time))
            if i == 0:
                x = self.settings.attend(i, x, conditioning)
        return x


class UpBlock(nn.Module):
    """Layers that each take one skip, the last one first, then an enlargement to `size` if any."""

    channels: int
    attends: bool
    size: tuple[int, int] | None
    settings: Settings

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b f h w c"],
        *,
        skips: list[Array],
        time: Float[Array, "b e"],
        conditioning: Float[Array, "b n d"],
    ) -> Float[Array, "b f k l m"]:
        for i, skip in enumerate(reversed(skips)):
            x = jnp.concatenate([x, skip], axis=-1)
            x = self.settings.resnet(i, channels=self.channels)(x, time)
            x = self.settings.temporal_conv(i)(x)
            if self.attends:
                x = self.settings.attend(i, x, conditioning)
        if self.size is not None:
            x = upsample(x, size=self.size)
            x = conv3x3(self.channels, dtype=self.settings.dtype, name="upsamplers.0.conv")(x)
        return x


def upsample(x: Float[Array, "*b h w c"], *, size: tuple[int, int]) -> Float[Array, "*b k l c"]:
    """Nearest-neighbour enlargement to `size`."""
    for axis, target in zip((-3, -2), size, strict=True):
        source = x.shape[axis]
        if target in (2 * source, 2 * source - 1):
            # Repeating and cropping is the same here, and its gradient is no scatter.
            x = jnp.repeat(x, 2, axis=axis)
            x = jax.lax.slice_in_dim(x, 0, target, axis=x.ndim + axis)
        else:
            x = jnp.take(x, np.arange(target) * source // target, axis=axis)
    return x


def num_heads(channels: int, *, head_dim: int) -> int:
    """How many heads of width `head_dim` fit into `channels`."""
    if channels < head_dim:
        raise ValueError(
            f"attention_head_dim {head_dim} exceeds a block's width {channels}; it must be smaller"
        )
    return channels // head_dim
