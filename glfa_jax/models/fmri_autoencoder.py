"""fMRI-PTE: a ViT autoencoder whose bottleneck is the [CLS] token (SPEC §2.1)."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from glfa_jax.models.config_values import require_table_size
from glfa_jax.models.equal_blocks import run_equal
from glfa_jax.models.glfa import from_patches, to_patches
from glfa_jax.models.layers import LayerNorm
from glfa_jax.models.mesh_axes import spread
from glfa_jax.models.transformer import Block


class Reconstruction(NamedTuple):
    features: Float[Array, "*b n d"]  # [CLS] first, after the encoder's last norm
    latent: Float[Array, "*b 1 l"]
    tokens: Float[Array, "*b m p"]  # pixels per patch, without [CLS]
    image: Float[Array, "*b h w"]


def sincos_positions(rows: int, columns: int, width: int) -> Float[np.ndarray, "n d"]:
    """Fixed 2-D positions with a zero row for [CLS] in front.

    The first half of the channels encodes the column, the second the row; in each half sines come
    before cosines, frequencies 10000^(-i / (width / 4)).
    """
    if width % 4:
        raise ValueError(f"the width must be a multiple of 4 for 2-D positions, got {width}")
    require_table_size(rows * columns, width)
    frequencies = 10000.0 ** (-np.arange(width // 4) / (width / 4))

    def encode(position: np.ndarray) -> np.ndarray:
        angles = position.reshape(-1, 1) * frequencies
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)

    row, column = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    table = np.concatenate([encode(column), encode(row)], axis=1)
    return np.concatenate([np.zeros((1, width)), table]).astype(np.float32)


class PatchEmbedding(nn.Module):
    """A convolution whose stride is its kernel, written as one matrix product."""

    width: int
    patch_size: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "*b h w"]) -> Float[Array, "*b n d"]:
        kernel, bias = _PatchProjection(self.width, self.patch_size, name="proj")()
        x, kernel, bias = (y.astype(self.dtype) for y in (x, kernel, bias))
        return to_patches(x, self.patch_size) @ kernel.reshape(-1, self.width) + bias


class _PatchProjection(nn.Module):
    """Holds the weights in the shape of the convolution that checkpoints store."""

    width: int
    patch_size: int

    @nn.compact
    def __call__(self):
        shape = (self.patch_size, self.patch_size, 1, self.width)
        kernel = self.param("kernel", nn.initializers.xavier_uniform(), shape)
        return kernel, self.param("bias", nn.initializers.zeros, (self.width,))


class FmriAutoencoder(nn.Module):
    """Encoder, bottleneck and decoder over flat maps (h, w) of z-scored BOLD, zero off the cortex.

    The position tables are parameters because checkpoints store them; they are not trained.
    Without `decoder`, only `encode` can be called. `dtype` is what is computed in (parameters stay
    float32); with `remat` the backward pass recomputes every block from its input.
    """

    height: int
    width: int
    patch_size: int = 16
    dim: int = 1024
    depth: int = 24
    decoder_depth: int = 24
    num_heads: int = 16
    mlp_ratio: float = 4.0
    latent: int = 2048
    dropout: float = 0.0
    decoder: bool = True
    dtype: DTypeLike = jnp.float32
    remat: bool = False

    def setup(self):
        rows, columns = self.height // self.patch_size, self.width // self.patch_size
        token = nn.initializers.normal(0.02)

        def positions(_):
            return jnp.asarray(sincos_positions(rows, columns, self.dim))[None]

        def blocks(name: str, depth: int):
            return [
                Block(self.num_heads, self.mlp_ratio, self.dropout, self.dtype, name=f"{name}.{i}")
                for i in range(depth)
            ]

        self.cls_token = self.param("cls_token", token, (1, 1, self.dim))
        self.pos_embed = self.param("pos_embed", positions)
        self.patch_embed = PatchEmbedding(self.dim, self.patch_size, self.dtype)
        self.blocks = blocks("blocks", self.depth)
        self.norm = LayerNorm(epsilon=1e-5, dtype=self.dtype)
        self.drop = nn.Dropout(self.dropout)
        if not self.decoder:
            return
        self.mask_token = self.param("mask_token", token, (1, 1, self.dim))
        self.decoder_pos_embed = self.param("decoder_pos_embed", positions)
        self.pred = nn.Dense(self.latent, dtype=self.dtype)
        self.decoder_embed = nn.Dense(self.dim, dtype=self.dtype)
        self.decoder_blocks = blocks("decoder_blocks", self.decoder_depth)
        self.decoder_norm = LayerNorm(epsilon=1e-5, dtype=self.dtype)
        self.decoder_pred = nn.Dense(self.patch_size**2, dtype=self.dtype)

    def encode(
        self, x: Float[Array, "*b h w"], *, deterministic: bool = True
    ) -> Float[Array, "*b n d"]:
        """[CLS] and patch tokens after the encoder's last norm."""
        leading = x.shape[:-2]
        if len(leading) > 2:  # windows of several subjects are one row of maps
            x = x.reshape(leading[0], -1, *x.shape[-2:])
        tokens = self.patch_embed(spread(x))
        cls = jnp.broadcast_to(self.cls_token[0], (*tokens.shape[:-2], 1, self.dim))
        tokens = jnp.concatenate([cls, tokens], axis=-2) + self.pos_embed[0]
        tokens = tokens.astype(self.dtype)
        tokens = self.drop(tokens, deterministic=deterministic)
        tokens = run_equal(self.blocks, tokens, remat=self.remat, deterministic=deterministic)
        tokens = spread(self.norm(spread(tokens)))
        return tokens.reshape(*leading, *tokens.shape[-2:])

    def decode(
        self, latent: Float[Array, "*b 1 l"], *, deterministic: bool = True
    ) -> Float[Array, "*b m p"]:
        """Pixels of each patch from the latent alone."""
        cls = self.decoder_embed(latent)
        count = self.decoder_pos_embed.shape[1] - 1
        masks = jnp.broadcast_to(self.mask_token[0], (*cls.shape[:-2], count, self.dim))
        tokens = jnp.concatenate([cls, masks], axis=-2) + self.decoder_pos_embed[0]
        tokens = run_equal(
            self.decoder_blocks,
            tokens.astype(self.dtype),
            remat=self.remat,
            deterministic=deterministic,
        )
        return spread(self.decoder_pred(self.decoder_norm(spread(tokens))))[..., 1:, :]

    def __call__(self, x: Float[Array, "*b h w"], *, deterministic: bool = True) -> Reconstruction:
        features = self.encode(x, deterministic=deterministic)
        latent = self.pred(features[..., :1, :])
        tokens = self.decode(latent, deterministic=deterministic)
        tokens = tokens.astype(jnp.float32)
        image = from_patches(tokens, self.height, self.width, self.patch_size)
        return Reconstruction(features, latent, tokens, image)
