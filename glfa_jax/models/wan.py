"""WanTransformer: the text-to-video denoiser of Wan 2.1 (arXiv 2503.20314)."""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num

from glfa_jax.models.equal_blocks import run_equal
from glfa_jax.models.hub_config import fields_from_config
from glfa_jax.models.layers import LayerNorm, gelu_tanh, waves
from glfa_jax.models.mesh_axes import shard
from glfa_jax.models.pretrained_encoder import PatchEmbed
from glfa_jax.models.rotary import rotary
from glfa_jax.models.wan_blocks import WanBlock, modulate, modulation_table

_OF_IMAGES = ("image_dim", "added_kv_proj_dim", "pos_embed_seq_len")


def _dense32(width: int, name: str) -> nn.Dense:
    """What is computed in float32 whatever the rest is."""
    return nn.Dense(width, dtype=jnp.float32, name=name)


class WanTransformer(nn.Module):
    """Predicts the velocity of a noisy latent; fields as in diffusers' config.json.

    The defaults are the model of 1.3 billion parameters. `dtype` is what is computed in (parameters
    stay as they are); with `remat` the backward pass recomputes every block from its input.
    """

    num_attention_heads: int = 12
    attention_head_dim: int = 128
    ffn_dim: int = 8960
    num_layers: int = 30
    in_channels: int = 16
    out_channels: int = 16
    text_dim: int = 4096
    freq_dim: int = 256
    patch_size: tuple[int, ...] = (1, 2, 2)
    cross_attn_norm: bool = True
    eps: float = 1e-6
    rope_max_seq_len: int = 1024
    dtype: DTypeLike = jnp.float32
    remat: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **options: Any) -> "WanTransformer":
        """From the content of config.json; `options` are `dtype` and `remat`.

        Raises ValueError naming every option that is missing or not supported. Of any size, Wan 2.1
        and the transformers of Wan 2.2 from text; those from images read more than a condition.
        """
        found = [
            f"{key} is {config[key]!r:.60}" for key in _OF_IMAGES if config.get(key) is not None
        ]
        given, made = (config.get(f"{side}_channels", 16) for side in ("in", "out"))
        if isinstance(given, int) and isinstance(made, int) and given != made:
            found.append(f"in_channels is {given!r:.60} and out_channels {made!r:.60}")
        if found:
            raise ValueError(
                f"config of {cls.__name__}: {', '.join(found)}: a model that starts from images, "
                "supported are those from text alone, of any size"
            )
        values = fields_from_config(
            cls,
            config=config,
            required=("num_attention_heads", "ffn_dim", "num_layers"),
            fixed={"qk_norm": ("rms_norm_across_heads",)},
            unused=_OF_IMAGES,
        )
        return cls(**values, **options)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.patch_size) != 3:
            raise ValueError(
                f"patch_size: {list(self.patch_size)}, must be three: of frames, rows, columns"
            )
        for key in ("attention_head_dim", "freq_dim"):
            if getattr(self, key) % 2:
                raise ValueError(f"{key}: {getattr(self, key)}, must be even")

    @nn.compact
    def __call__(
        self,
        sample: Float[Array, "b l i j c"],
        timestep: Num[Array, "*b"],
        conditioning: Float[Array, "b n d"],
    ) -> Float[Array, "b l i j k"]:
        """`timestep`: from 0 to 1000, one a clip or one for all. The result has the sample's dtype.

        Raises ValueError where patches do not divide a side, or positions are beyond
        `rope_max_seq_len`.
        """
        grid = self._grid(sample, conditioning)
        batch, width = len(sample), self.num_attention_heads * self.attention_head_dim

        x = shard(sample.astype(self.dtype), over_frame=1)
        x = PatchEmbed(width, self.patch_size, dtype=self.dtype, name="patch_embedding")(x)
        x = shard(x.reshape(batch, grid[0], grid[1] * grid[2], width), over_frame=1)

        time = self._embed_time(jnp.broadcast_to(timestep, (batch,)))
        modulation = _dense32(6 * width, "condition_embedder.time_proj")(nn.silu(time))
        blocks = [
            WanBlock(
                self.num_attention_heads,
                self.attention_head_dim,
                self.ffn_dim,
                self.eps,
                self.cross_attn_norm,
                dtype=self.dtype,
                name=f"blocks.{i}",
            )
            for i in range(self.num_layers)
        ]
        x = run_equal(
            blocks,
            x,
            remat=self.remat,
            modulation=modulation.reshape(batch, 6, width),
            context=self._embed_condition(conditioning.astype(self.dtype)),
            rotary=rotary(grid, self.attention_head_dim),
        )

        # In float32 whatever is computed in: guidance multiplies what is rounded here.
        shift, scale = jnp.moveaxis(modulation_table(self, 2, width) + time[:, None], 1, 0)
        x = LayerNorm(self.eps, affine=False, name="norm_out")(x)
        x = modulate(x, shift=shift, scale=scale)
        x = _dense32(math.prod(self.patch_size) * self.out_channels, "proj_out")(x)
        return shard(self._unpatched(x, grid), over_frame=1).astype(sample.dtype)

    def _grid(self, sample: Array, conditioning: Array) -> tuple[int, int, int]:
        """How many patches lie along frames, rows and columns."""
        if sample.shape[-1] != self.in_channels:
            raise ValueError(
                f"sample: {sample.shape[-1]} channels in its last axis, must be {self.in_channels}"
            )
        if conditioning.shape[-1] != self.text_dim:
            raise ValueError(
                f"conditioning: width {conditioning.shape[-1]}, must be text_dim {self.text_dim}"
            )
        sides = sample.shape[1:-1]
        for what, side, patch in zip(
            ("frames", "rows", "columns"), sides, self.patch_size, strict=True
        ):
            if side % patch or not 0 < side // patch <= self.rope_max_seq_len:
                raise ValueError(
                    f"sample: {side} {what}, must be a multiple of {patch}, at most "
                    f"{patch * self.rope_max_seq_len}"
                )
        frames, rows, columns = (n // p for n, p in zip(sides, self.patch_size, strict=True))
        return frames, rows, columns

    def _embed_time(self, timestep: Num[Array, " b"]) -> Float[Array, "b w"]:
        """In float32, as it is stored."""
        width = self.num_attention_heads * self.attention_head_dim
        x = waves(timestep, self.freq_dim)
        x = _dense32(width, "condition_embedder.time_embedder.linear_1")(x)
        return _dense32(width, "condition_embedder.time_embedder.linear_2")(nn.silu(x))

    def _embed_condition(self, conditioning: Float[Array, "b n d"]) -> Float[Array, "b n w"]:
        def dense(name: str) -> nn.Dense:
            width = self.num_attention_heads * self.attention_head_dim
            name = f"condition_embedder.text_embedder.{name}"
            return nn.Dense(width, dtype=self.dtype, name=name)

        return shard(dense("linear_2")(gelu_tanh(dense("linear_1")(conditioning))))

    def _unpatched(
        self, x: Float[Array, "b f n e"], grid: tuple[int, int, int]
    ) -> Float[Array, "b l i j k"]:
        batch, sides = len(x), [n * p for n, p in zip(grid, self.patch_size, strict=True)]
        x = x.reshape(batch, *grid, *self.patch_size, self.out_channels)
        return x.transpose(0, 1, 4, 2, 5, 3, 6, 7).reshape(batch, *sides, self.out_channels)
