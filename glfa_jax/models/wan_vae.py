"""AutoencoderKLWan: videos <-> latents of a quarter of the frames and an eighth of the size (the
autoencoder of Wan 2.1, arXiv 2503.20314).

The first frame of a clip has latents of its own, every four after it share theirs. No frame knows
of later ones, so that clips of any length pass through in pieces. `encode` and `decode` speak the
autoencoder's own latents; `to_diffusion` and `from_diffusion` take them to and from zero mean and
unit variance, channel by channel.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from glfa_jax.models.hub_config import fields_from_config
from glfa_jax.models.mesh_axes import shard
from glfa_jax.models.vae import Posterior
from glfa_jax.models.wan_vae_blocks import (
    CausalConv,
    ChannelNorm,
    Downsample,
    MidBlock,
    ResidualBlock,
    Upsample,
    streamed,
)

# Of the latents of Wan 2.1.
_MEAN = (
    *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
    *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
_STD = (
    *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
    *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)


class AutoencoderKLWan(nn.Module):
    """Fields as in diffusers' config.json; `dtype` is what is computed in."""

    base_dim: int = 96
    decoder_base_dim: int | None = None
    z_dim: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    temperal_downsample: tuple[bool, ...] = (False, True, True)
    latents_mean: tuple[float, ...] = _MEAN
    latents_std: tuple[float, ...] = _STD
    in_channels: int = 3
    out_channels: int = 3
    dtype: DTypeLike = jnp.float32

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **options: Any) -> "AutoencoderKLWan":
        """From the content of config.json; `options` is `dtype`.

        Raises ValueError naming every option that is missing or not supported.
        """
        if config.get("is_residual"):
            raise ValueError(
                "is_residual is true, as in the autoencoder of Wan 2.2 5B, supported is that of "
                "Wan 2.1, which the 14B models of Wan 2.2 have too"
            )
        values = fields_from_config(
            cls,
            config=config,
            required=("base_dim", "z_dim", "dim_mult", "num_res_blocks", "temperal_downsample"),
            fixed={"attn_scales": ((),), "is_residual": (False,), "patch_size": (None,)},
            unused=("dropout", "scale_factor_temporal", "scale_factor_spatial"),
        )
        return cls(**values, **options)

    def __post_init__(self) -> None:
        super().__post_init__()
        halvings = len(self.dim_mult) - 1
        if len(self.temperal_downsample) != halvings:
            raise ValueError(
                f"temperal_downsample: {len(self.temperal_downsample)} given for {halvings} "
                f"halvings of the size, one fewer than dim_mult has entries"
            )
        for key in ("latents_mean", "latents_std"):
            if len(getattr(self, key)) != self.z_dim:
                given = len(getattr(self, key))
                raise ValueError(f"{key}: {given} given for {self.z_dim} latent channels (z_dim)")
        if min(self.latents_std) <= 0:
            raise ValueError(f"latents_std: has {min(self.latents_std)}, must be above 0")

    def setup(self) -> None:
        self.encoder = Encoder(
            2 * self.z_dim,
            widths=tuple(self.base_dim * times for times in self.dim_mult),
            num_res_blocks=self.num_res_blocks,
            over_time=tuple(self.temperal_downsample),
            dtype=self.dtype,
        )
        self.decoder = Decoder(
            self.out_channels,
            widths=tuple(
                (self.decoder_base_dim or self.base_dim) * times for times in self.dim_mult[::-1]
            ),
            num_res_blocks=self.num_res_blocks,
            over_time=tuple(self.temperal_downsample[::-1]),
            dtype=self.dtype,
        )
        self.quant_conv = nn.Dense(2 * self.z_dim, dtype=jnp.float32)
        self.post_quant_conv = nn.Dense(self.z_dim, dtype=self.dtype)

    @property
    def frames_per_latent(self) -> int:
        """Frames of video that share a frame of latents, but for the first, which has its own."""
        return 2 ** sum(self.temperal_downsample)

    @property
    def pixels_per_latent(self) -> int:
        """Rows, or columns, of pixels that share one of latents."""
        return 2 ** len(self.temperal_downsample)

    def encode(self, video: Float[Array, "b f h w c"]) -> Posterior:
        """`video`: RGB in [-1, 1]; 4 k + 1 frames, height and width multiples of 8.

        Raises ValueError for other shapes.
        """
        every, side = self.frames_per_latent, self.pixels_per_latent
        if (
            not _are_clips(video, channels=self.in_channels)
            or (video.shape[1] - 1) % every
            or any(n % side for n in video.shape[2:4])
        ):
            raise ValueError(
                f"video: is {video.shape}, must be (clips, frames, height, width, "
                f"{self.in_channels}) with {every} k + 1 frames, height and width multiples of "
                f"{side}"
            )
        moments = self.quant_conv(streamed(self.encoder, video, piece=every, gives=1))
        mean, log_variance = jnp.split(moments, 2, axis=-1)
        return Posterior(mean, jnp.clip(log_variance, -30.0, 20.0))

    def decode(self, latent: Float[Array, "b l i j c"]) -> Float[Array, "b f h w k"]:
        """Videos, clipped to [-1, 1], in float32: 4 (l - 1) + 1 frames of latents of l."""
        if not _are_clips(latent, channels=self.z_dim):
            raise ValueError(
                f"latent: is {latent.shape}, must be (clips, frames, height, width, {self.z_dim})"
            )
        latent = self.post_quant_conv(latent.astype(self.dtype))
        return streamed(self.decoder, latent, piece=1, gives=self.frames_per_latent)

    def to_diffusion(self, latent: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        """The autoencoder's latents scaled to the diffusion model's."""
        return (latent - jnp.array(self.latents_mean)) / jnp.array(self.latents_std)

    def from_diffusion(self, latent: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        """Inverse of `to_diffusion`."""
        return latent * jnp.array(self.latents_std) + jnp.array(self.latents_mean)

    def __call__(self, video: Float[Array, "b f h w c"]) -> Float[Array, "b f h w k"]:
        """Reconstruction from the mode; touches every parameter, so use it for `init`."""
        return self.decode(self.encode(video).mode())


class Encoder(nn.Module):
    """A piece of video to moments."""

    channels: int
    widths: tuple[int, ...]
    num_res_blocks: int
    over_time: tuple[bool, ...]
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b f h w c"]) -> Float[Array, "b g k l m"]:
        x = CausalConv(self.widths[0], dtype=self.dtype, name="conv_in")(x.astype(self.dtype))
        # All blocks in one list, as PyTorch numbers them.
        blocks: list[tuple[type[nn.Module], Any]] = []
        for width, over_time in zip(self.widths, (*self.over_time, None), strict=True):
            blocks += [(ResidualBlock, width)] * self.num_res_blocks
            blocks += [] if over_time is None else [(Downsample, over_time)]
        for i, (block, value) in enumerate(blocks):
            x = block(value, dtype=self.dtype, name=f"down_blocks.{i}")(shard(x))
        x = MidBlock(dtype=self.dtype, name="mid_block")(x)
        return _head(x, self.channels)


class Decoder(nn.Module):
    """A frame of latents to frames of video, clipped; a layer more a block than the encoder."""

    channels: int
    widths: tuple[int, ...]
    num_res_blocks: int
    over_time: tuple[bool, ...]
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b f h w c"]) -> Float[Array, "b g k l m"]:
        x = CausalConv(self.widths[0], dtype=self.dtype, name="conv_in")(shard(x))
        x = MidBlock(dtype=self.dtype, name="mid_block")(x)
        for i, (width, over_time) in enumerate(
            zip(self.widths, (*self.over_time, None), strict=True)
        ):
            x = UpBlock(
                width,
                num_layers=self.num_res_blocks + 1,
                over_time=over_time,
                dtype=self.dtype,
                name=f"up_blocks.{i}",
            )(x)
        return jnp.clip(_head(x, self.channels), -1.0, 1.0)


class UpBlock(nn.Module):
    """Residual blocks, then a doubling, of the frames too where `over_time`; none where None."""

    channels: int
    num_layers: int
    over_time: bool | None
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b f h w c"]) -> Float[Array, "b g k l m"]:
        for i in range(self.num_layers):
            x = ResidualBlock(self.channels, dtype=self.dtype, name=f"resnets.{i}")(x)
        if self.over_time is not None:
            x = Upsample(self.over_time, dtype=self.dtype, name="upsamplers.0")(x)
        return x


def _are_clips(x: Array, *, channels: int) -> bool:
    return x.ndim == 5 and x.shape[-1] == channels and 0 not in x.shape


def _head(x: Array, channels: int) -> Array:
    """In float32 whatever is computed in: this is the result."""
    x = nn.silu(ChannelNorm(name="norm_out")(x))
    return CausalConv(channels, name="conv_out")(x)
