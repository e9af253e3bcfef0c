"""UNet3D: the text-to-video denoiser of ModelScope T2V and zeroscope_v2_576w (SPEC §2.4)."""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from glfa_jax.models.hub_config import fields_from_config
from glfa_jax.models.layers import GroupNorm

# The transformer before the first block has this many heads whatever its width.
_HEADS_IN = 8
_DOWN = {"CrossAttnDownBlock3D": True, "DownBlock3D": False}
_UP = {"CrossAttnUpBlock3D": True, "UpBlock3D": False}


class UNet3D(nn.Module):
    """Predicts the noise (or velocity) of a noisy video latent; fields as in diffusers' config.json.

    `attention_head_dim` is the width of a head. `dtype` is what is computed in (parameters stay
    float32); with `remat` the backward pass recomputes every layer from its input.
    """

    in_channels: int = 4
    out_channels: int = 4
    down_block_types: tuple[str, ...] = ("CrossAttnDownBlock3D",) * 3 + ("DownBlock3D",)
    up_block_types: tuple[str, ...] = ("UpBlock3D",) + ("CrossAttnUpBlock3D",) * 3
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    downsample_padding: int = 1
    mid_block_scale_factor: float = 1.0
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    cross_attention_dim: int = 1024
    attention_head_dim: int = 64
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **options: Any) -> "UNet3D":
        """From the content of config.json; `options` are `dtype` and `remat`.

        Raises ValueError naming every option that is missing or not supported.
        """
        values = fields_from_config(
            cls,
            config=config,
            required=("block_out_channels", "down_block_types", "up_block_types"),
            fixed={
                "act_fn": ("silu", "swish"),
                "num_attention_heads": (None,),
                "time_cond_proj_dim": (None,),
                "downsample_padding": (0, 1),
            },
            unused=("sample_size",),
        )
        return cls(**values, **options)

    def __post_init__(self) -> None:
        super().__post_init__()
        blocks = len(self.block_out_channels)
        for key, known in (("down_block_types", _DOWN), ("up_block_types", _UP)):
            kinds = getattr(self, key)
            if len(kinds) != blocks:
                raise ValueError(
                    f"{key}: {len(kinds)} given for {blocks} block_out_channels, must be as many"
                )
            strangers = sorted(set(kinds) - set(known))
            if strangers:
                raise ValueError(f"{key}: {strangers} not among {sorted(known)}")
        for key in ("attention_head_dim", "norm_num_groups"):
            if not isinstance(getattr(self, key), int):
                raise ValueError(f"{key}: must be one integer, got {getattr(self, key)!r}")
        if self.block_out_channels[0] % 2:
            raise ValueError(f"block_out_channels: {self.block_out_channels[0]} first, must be even")

    @nn.compact
    def __call__(
        self,
        sample: Float[Array, "b f h w c"],
        timestep: Int[Array, "*b"],
        conditioning: Float[Array, "b n d"],
    ) -> Float[Array, "b f h w k"]:
        """`timestep`: one a clip, or one for all. The result has the sample's dtype."""
        if sample.shape[-1] != self.in_channels:
            raise ValueError(
                f"sample: {sample.shape[-1]} channels in its last axis, must be {self.in_channels}"
            )
        if conditioning.shape[-1] != self.cross_attention_dim:
            raise ValueError(
                f"conditioning: width {conditioning.shape[-1]}, must be cross_attention_dim "
                f"{self.cross_attention_dim}"
            )
        build = _Builder(self)
        time = self._embed(jnp.broadcast_to(timestep, sample.shape[:1]))
        conditioning = conditioning.astype(self.dtype)

        widths = self.block_out_channels
        x = build.conv(widths[0], "conv_in")(sample.astype(self.dtype))
        x = build.temporal(_HEADS_IN, "transformer_in")(x)

        skips = [x]
        for i, (kind, width) in enumerate(zip(self.down_block_types, widths, strict=True)):
            block = build.block(f"down_blocks.{i}", width=width, attends=_DOWN[kind])
            for j in range(self.layers_per_block):
                x = block.resnet(j)(x, time)
                x = block.layer(j, x, conditioning)
                skips.append(x)
            if i < len(widths) - 1:
                x = block.downsample(x)
                skips.append(x)

        block = build.block("mid_block", width=widths[-1], attends=True)
        block.scale_factor = self.mid_block_scale_factor
        x = block.resnet(0)(x, time)
        x = block.temporal_conv(0)(x)
        x = block.attend(0, x, conditioning)
        x = block.resnet(1)(x, time)
        x = block.temporal_conv(1)(x)

        for i, (kind, width) in enumerate(zip(self.up_block_types, widths[::-1], strict=True)):
            block = build.block(f"up_blocks.{i}", width=width, attends=_UP[kind])
            for j in range(self.layers_per_block + 1):
                x = block.resnet(j)(jnp.concatenate([x, skips.pop()], axis=-1), time)
                x = block.layer(j, x, conditioning)
            if i < len(widths) - 1:
                # The next block's skips tell the size, which is odd where a halving rounded up.
                x = block.upsample(x, size=skips[-1].shape[2:4])

        x = GroupNorm(
            self.norm_num_groups,
            epsilon=self.norm_eps,
            pooled=2,
            dtype=self.dtype,
            name="conv_norm_out",
        )(x)
        return build.conv(self.out_channels, "conv_out")(nn.silu(x)).astype(sample.dtype)

    def _embed(self, timestep: Int[Array, " b"]) -> Float[Array, "b d"]:
        width = self.block_out_channels[0]
        half = width // 2
        rates = jnp.exp(-math.log(10000) / half * jnp.arange(half, dtype=jnp.float32))
        angles = timestep[:, None].astype(jnp.float32) * rates
        x = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1).astype(self.dtype)
        x = nn.Dense(4 * width, dtype=self.dtype, name="time_embedding.linear_1")(x)
        return nn.Dense(4 * width, dtype=self.dtype, name="time_embedding.linear_2")(nn.silu(x))
