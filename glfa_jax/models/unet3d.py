"""UNet3D: the text-to-video denoiser of ModelScope T2V and zeroscope_v2_576w (SPEC §2.4)."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from glfa_jax.models.convolution import conv3x3
from glfa_jax.models.hub_config import fields_from_config
from glfa_jax.models.layers import GroupNorm, waves
from glfa_jax.models.mesh_axes import shard
from glfa_jax.models.unet3d_blocks import DownBlock, MidBlock, Settings, UpBlock

# The transformer before the first block has this many heads whatever its width.
_HEADS_IN = 8
_DOWN = {"CrossAttnDownBlock3D": True, "DownBlock3D": False}
_UP = {"CrossAttnUpBlock3D": True, "UpBlock3D": False}


class UNet3D(nn.Module):
    """Predicts the noise (or velocity) of a noisy latent; fields as in diffusers' config.json.

    `attention_head_dim` is the width of a head. `dtype` is what is computed in (parameters stay
    float32); with `remat` the backward pass recomputes every layer from its input. `dropout` is the
    rate in the temporal convolutions while training.
    """

    in_channels: int = 4
    out_channels: int = 4
    down_block_types: tuple[str, ...] = ("CrossAttnDownBlock3D",) * 3 + ("DownBlock3D",)
    up_block_types: tuple[str, ...] = ("UpBlock3D",) + ("CrossAttnUpBlock3D",) * 3
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    downsample_padding: int = 1
    mid_block_scale_factor: float | int = 1
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    cross_attention_dim: int = 1024
    attention_head_dim: int = 64
    dtype: DTypeLike = jnp.float32
    remat: bool = False
    dropout: float = 0.0

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **options: Any) -> "UNet3D":
        """From the content of config.json; `options` are `dtype`, `remat` and
        `dropout`.

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
        if self.block_out_channels[0] % 2:
            raise ValueError(
                f"block_out_channels: {self.block_out_channels[0]} first, must be even"
            )

    @nn.compact
    def __call__(
        self,
        sample: Float[Array, "b f h w c"],
        timestep: Int[Array, "*b"],
        conditioning: Float[Array, "b n d"],
        *,
        over_time: bool = True,
        deterministic: bool = True,
    ) -> Float[Array, "b f h w k"]:
        """`timestep`: one a clip, or one for all. The result has the sample's dtype.

        Without `over_time` every layer that mixes frames is left out: the text-to-image model
        inside. Nothing is dropped where it is `deterministic`.
        """
        if sample.shape[-1] != self.in_channels:
            raise ValueError(
                f"sample: {sample.shape[-1]} channels in its last axis, must be {self.in_channels}"
            )
        if conditioning.shape[-1] != self.cross_attention_dim:
            raise ValueError(
                f"conditioning: width {conditioning.shape[-1]}, must be cross_attention_dim "
                f"{self.cross_attention_dim}"
            )
        settings = Settings(
            self.attention_head_dim,
            self.norm_num_groups,
            self.norm_eps,
            self.dtype,
            self.remat,
            over_time,
            0.0 if deterministic else self.dropout,
        )
        widths, last = self.block_out_channels, len(self.block_out_channels) - 1
        time = self._embed(jnp.broadcast_to(timestep, sample.shape[:1]))
        given = {"time": time, "conditioning": conditioning.astype(self.dtype)}

        x = shard(sample.astype(self.dtype), over_frame=1)
        x = conv3x3(widths[0], dtype=self.dtype, name="conv_in")(x)
        x = settings.temporal("transformer_in", heads=_HEADS_IN)(x)

        skips = [x]
        for i, (kind, width) in enumerate(zip(self.down_block_types, widths, strict=True)):
            x, more = DownBlock(
                width,
                num_layers=self.layers_per_block,
                attends=_DOWN[kind],
                padding=self.downsample_padding if i < last else None,
                settings=settings,
                name=f"down_blocks.{i}",
            )(x, **given)
            skips += more

        x = MidBlock(self.mid_block_scale_factor, settings=settings, name="mid_block")(x, **given)

        taken = self.layers_per_block + 1
        for i, (kind, width) in enumerate(zip(self.up_block_types, widths[::-1], strict=True)):
            skips, own = skips[:-taken], skips[-taken:]
            x = UpBlock(
                width,
                attends=_UP[kind],
                # The next block's skips tell it: odd where the way down rounded a half up.
                size=(skips[-1].shape[2], skips[-1].shape[3]) if i < last else None,
                settings=settings,
                name=f"up_blocks.{i}",
            )(x, skips=own, **given)

        # In float32 whatever is computed in: guidance multiplies what is rounded here.
        x = GroupNorm(
            self.norm_num_groups,
            epsilon=self.norm_eps,
            pooled=2,
            dtype=jnp.float32,
            name="conv_norm_out",
        )(x)
        x = conv3x3(self.out_channels, dtype=jnp.float32, name="conv_out")(nn.silu(x))
        return x.astype(sample.dtype)

    def _embed(self, timestep: Int[Array, " b"]) -> Float[Array, "b d"]:
        width = self.block_out_channels[0]
        x = waves(timestep, width).astype(self.dtype)
        x = nn.Dense(4 * width, dtype=self.dtype, name="time_embedding.linear_1")(x)
        return nn.Dense(4 * width, dtype=self.dtype, name="time_embedding.linear_2")(nn.silu(x))
