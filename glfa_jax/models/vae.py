"""AutoencoderKL: images <-> latents of an eighth of the size (Stable Diffusion's VAE, SPEC §2.4).

`encode` and `decode` speak the VAE's own latents. The diffusion model wants them at unit variance:
`to_diffusion` and `from_diffusion` multiply and divide by `scaling_factor`; nothing else does.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from glfa_jax.models.convolution import conv3x3, downsample
from glfa_jax.models.hub_config import fields_from_config
from glfa_jax.models.layers import GroupNorm
from glfa_jax.models.mesh_axes import shard
from glfa_jax.models.unet3d_blocks import ResnetBlock, upsample
from glfa_jax.ops.attention import attention

_EPSILON = 1e-6


class Posterior(NamedTuple):
    """A Gaussian per latent element, in float32; the log variance lies in [-30, 20]."""

    mean: Float[Array, "*b h w c"]
    log_variance: Float[Array, "*b h w c"]

    def mode(self) -> Float[Array, "*b h w c"]:
        return self.mean

    def sample(self, key: Key[Array, ""]) -> Float[Array, "*b h w c"]:
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.exp(0.5 * self.log_variance) * noise

    def divergence(self) -> Float[Array, "*b"]:
        """Kullback-Leibler divergence from the standard normal, in nats an image."""
        terms = self.mean**2 + jnp.exp(self.log_variance) - 1 - self.log_variance
        return 0.5 * terms.sum((-3, -2, -1))


class AutoencoderKL(nn.Module):
    """Fields as in diffusers' config.json; `dtype` is what is computed in."""

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",) * 4
    up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",) * 4
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    latent_channels: int = 4
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215
    dtype: DTypeLike = jnp.float32

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **options: Any) -> "AutoencoderKL":
        """From the content of config.json; `options` is `dtype`.

        Raises ValueError naming every option that is missing or not supported.
        """
        values = fields_from_config(
            cls,
            config=config,
            required=("block_out_channels", "down_block_types", "layers_per_block"),
            fixed={
                "act_fn": ("silu", "swish"),
                "shift_factor": (None,),
                "latents_mean": (None,),
                "latents_std": (None,),
                "use_quant_conv": (True,),
                "use_post_quant_conv": (True,),
                "mid_block_add_attention": (True,),
            },
            unused=("sample_size", "force_upcast"),
        )
        return cls(**values, **options)

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, kind in (
            ("down_block_types", "DownEncoderBlock2D"),
            ("up_block_types", "UpDecoderBlock2D"),
        ):
            wanted = (kind,) * len(self.block_out_channels)
            if tuple(getattr(self, key)) != wanted:
                raise ValueError(f"{key}: must be {wanted}, got {getattr(self, key)}")

    def setup(self) -> None:
        shared = {
            "block_out_channels": tuple(self.block_out_channels),
            "layers_per_block": self.layers_per_block,
            "norm_num_groups": self.norm_num_groups,
            "dtype": self.dtype,
        }
        self.encoder = Encoder(2 * self.latent_channels, **shared)
        self.decoder = Decoder(self.out_channels, **shared)
        self.quant_conv = nn.Dense(2 * self.latent_channels, dtype=jnp.float32)
        self.post_quant_conv = nn.Dense(self.latent_channels, dtype=self.dtype)

    def encode(self, image: Float[Array, "*b h w c"]) -> Posterior:
        """`image`: RGB in [-1, 1], height and width multiples of the reduction factor."""
        factor = 2 ** (len(self.block_out_channels) - 1)
        if image.shape[-1] != self.in_channels or any(n % factor for n in image.shape[-3:-1]):
            raise ValueError(
                f"image: is {image.shape}, must be (..., height, width, {self.in_channels}) with "
                f"height and width multiples of {factor}"
            )
        moments = self.quant_conv(self.encoder(image.astype(self.dtype)))
        mean, log_variance = jnp.split(moments, 2, axis=-1)
        return Posterior(mean, jnp.clip(log_variance, -30.0, 20.0))

    def decode(self, latent: Float[Array, "*b h w c"]) -> Float[Array, "*b k l m"]:
        """Images, about in [-1, 1] (not clipped), in float32."""
        if latent.shape[-1] != self.latent_channels:
            raise ValueError(
                f"latent: {latent.shape[-1]} channels in its last axis, must be "
                f"{self.latent_channels}"
            )
        return self.decoder(self.post_quant_conv(latent.astype(self.dtype)))

    def to_diffusion(self, latent: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
        """The VAE's latents scaled to the diffusion model's."""
        return latent * self.scaling_factor

    def from_diffusion(self, latent: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
        """Inverse of `to_diffusion`."""
        return latent / self.scaling_factor

    def __call__(self, image: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
        """Reconstruction from the mode; touches every parameter, so use it for `init`."""
        return self.decode(self.encode(image).mode())


class Encoder(nn.Module):
    """Image to moments."""

    channels: int
    block_out_channels: tuple[int, ...]
    layers_per_block: int
    norm_num_groups: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b k l m"]:
        widths = self.block_out_channels
        x = conv3x3(widths[0], dtype=self.dtype, name="conv_in")(x)
        for i, width in enumerate(widths):
            x = EncoderBlock(
                width,
                num_layers=self.layers_per_block,
                downsamples=i < len(widths) - 1,
                norm_num_groups=self.norm_num_groups,
                dtype=self.dtype,
                name=f"down_blocks.{i}",
            )(shard(x))
        x = VAEMidBlock(self.norm_num_groups, dtype=self.dtype, name="mid_block")(shard(x))
        return _head(x, self.channels, norm_num_groups=self.norm_num_groups)


class Decoder(nn.Module):
    """Latent to image; has one layer more a block than the encoder."""

    channels: int
    block_out_channels: tuple[int, ...]
    layers_per_block: int
    norm_num_groups: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b k l m"]:
        widths = self.block_out_channels[::-1]
        x = conv3x3(widths[0], dtype=self.dtype, name="conv_in")(x)
        x = VAEMidBlock(self.norm_num_groups, dtype=self.dtype, name="mid_block")(x)
        for i, width in enumerate(widths):
            x = DecoderBlock(
                width,
                num_layers=self.layers_per_block + 1,
                upsamples=i < len(widths) - 1,
                norm_num_groups=self.norm_num_groups,
                dtype=self.dtype,
                name=f"up_blocks.{i}",
            )(x)
        return _head(x, self.channels, norm_num_groups=self.norm_num_groups)


class EncoderBlock(nn.Module):
    """Residual blocks, then a halving padded below and right."""

    channels: int
    num_layers: int
    downsamples: bool
    norm_num_groups: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b k l m"]:
        for i in range(self.num_layers):
            x = _resnet(i, self.channels, norm_num_groups=self.norm_num_groups, dtype=self.dtype)(x)
        if self.downsamples:
            x = downsample(self.channels, padding=0, dtype=self.dtype)(x)
        return x


class DecoderBlock(nn.Module):
    """Residual blocks, then a doubling."""

    channels: int
    num_layers: int
    upsamples: bool
    norm_num_groups: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b k l m"]:
        for i in range(self.num_layers):
            x = _resnet(i, self.channels, norm_num_groups=self.norm_num_groups, dtype=self.dtype)(x)
        if self.upsamples:
            x = upsample(x, size=(2 * x.shape[-3], 2 * x.shape[-2]))
            x = conv3x3(self.channels, dtype=self.dtype, name="upsamplers.0.conv")(x)
        return x


class VAEMidBlock(nn.Module):
    """Residual block, single-head attention over all positions, residual block."""

    norm_num_groups: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
        shared = {"norm_num_groups": self.norm_num_groups, "dtype": self.dtype}
        x = _resnet(0, x.shape[-1], **shared)(x)
        x = SpatialAttention(**shared, name="attentions.0")(x)
        return _resnet(1, x.shape[-1], **shared)(x)


class SpatialAttention(nn.Module):
    """Adds attention over positions, one head as wide as the channels; projections have a bias."""

    norm_num_groups: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
        *batch, h, w, c = x.shape
        y = GroupNorm(
            self.norm_num_groups, epsilon=_EPSILON, pooled=2, dtype=self.dtype, name="group_norm"
        )(x)
        y = y.reshape(*batch, h * w, c)

        def project(name: str) -> Array:
            return nn.Dense(c, dtype=self.dtype, name=name)(y)[..., None, :]

        y = attention(project("to_q"), project("to_k"), project("to_v"))[..., 0, :]
        y = nn.Dense(c, dtype=self.dtype, name="to_out.0")(y)
        return x + y.reshape(x.shape)


def _resnet(index: int, channels: int, *, norm_num_groups: int, dtype: DTypeLike) -> ResnetBlock:
    return ResnetBlock(
        channels,
        norm_num_groups=norm_num_groups,
        norm_eps=_EPSILON,
        dtype=dtype,
        name=f"resnets.{index}",
    )


def _head(x: Array, channels: int, *, norm_num_groups: int) -> Array:
    """In float32 whatever is computed in: this is the result."""
    norm = GroupNorm(
        norm_num_groups, epsilon=_EPSILON, pooled=2, dtype=jnp.float32, name="conv_norm_out"
    )
    return conv3x3(channels, dtype=jnp.float32, name="conv_out")(nn.silu(norm(x)))
