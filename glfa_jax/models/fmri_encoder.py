"""From fMRI windows to the generator's condition: GLFA, fMRI-PTE, conditioning, contrast."""

from typing import Literal, NamedTuple, Protocol

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from glfa_jax.models.conditioning import Conditioning, ConvHead, LinearHead
from glfa_jax.models.fmri_autoencoder import FmriAutoencoder
from glfa_jax.models.glfa import GlfaLayer
from glfa_jax.models.mesh_axes import shard
from glfa_jax.ops.local_conv import Box


class Encoded(NamedTuple):
    aligned: Float[Array, "*b w height width"]  # in the common space; the input without alignment
    features: Float[Array, "*b w n d"]
    condition: Float[Array, "*b m c"]  # stands where text embeddings stand
    embedding: Float[Array, "*b e"]  # of unit length, in CLIP's joint space


class Aligning(Protocol):
    """What an encoder must know of an alignment: the layer for maps of one subject."""

    def layer(self, maps_shape: tuple[int, int], *, box: Box | None = None) -> nn.Module: ...


class _Autoencoder(nn.Module):
    """Gives the encoder the path it has in official checkpoints."""

    transformer: FmriAutoencoder

    def encode(self, x: Array, *, deterministic: bool) -> Array:
        return self.transformer.encode(x, deterministic=deterministic)


class FmriEncoder(nn.Module):
    """Submodules carry the names of the official checkpoints; `dim` is the encoder's width.

    `window` volumes make one condition of `tokens` tokens of width `token_dim`, or `dim` where that
    is None; `clip_dim` is the width of CLIP's joint space. `dtype` is what all but the alignment is
    computed in; `remat` as in FmriAutoencoder.

    kernel_size, global_part, local_part: of GLFA, the alignment in official checkpoints. With
        neither part on there is none, and the model is fMRI-PTE-V.
    alignment: another method in place of GLFA (`alignments`); both parts of that must be off.

    subjects: 0 where one alignment layer serves all; else how many have one each. Input then holds
        a window of each, (*b, subjects, w, height, width), and layer i aligns subject i's.
    """

    height: int
    width: int
    window: int
    tokens: int
    clip_dim: int
    patch_size: int = 16
    dim: int = 1024
    depth: int = 24
    num_heads: int = 16
    mlp_ratio: float = 4.0
    hidden_tokens: int = 321
    conditioning_heads: int = 16
    head: Literal["conv", "linear"] = "conv"
    token_dim: int | None = None
    kernel_size: int = 13
    global_part: bool = True
    local_part: bool = True
    alignment: Aligning | None = None
    subjects: int = 0
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32
    remat: bool = False
    box: Box | None = None  # where maps may differ from zero, if known

    def setup(self):
        if self.aligned and self.subjects:
            self.func_align_layers = [self.layer() for _ in range(self.subjects)]
        elif self.aligned:
            self.func_align_layer = self.layer()
        self.fmri_encoder = _Autoencoder(
            FmriAutoencoder(
                self.height,
                self.width,
                self.patch_size,
                self.dim,
                self.depth,
                num_heads=self.num_heads,
                mlp_ratio=self.mlp_ratio,
                dropout=self.dropout,
                decoder=False,
                dtype=self.dtype,
                remat=self.remat,
            )
        )
        self.fmri_encoder_proj = Conditioning(
            self.tokens,
            self.hidden_tokens,
            self.conditioning_heads,
            self.token_dim,
            self.dropout,
            self.dtype,
        )
        if self.head == "conv":
            quarter = max(self.tokens // 4, 1)
            hidden = (quarter, max(quarter // 4, 1))
            self.fmri2clip = ConvHead(hidden, self.clip_dim, self.dropout, self.dtype)
        else:
            self.fmri2clip = LinearHead(self.clip_dim, self.dropout, self.dtype)
        self.logit_scale = self.param("logit_scale", lambda _: jnp.float32(np.log(1 / 0.07)))

    @property
    def aligned(self) -> bool:
        """Whether there is an alignment."""
        return self.alignment is not None or self.global_part or self.local_part

    @nn.nowrap
    def layer(self) -> nn.Module:
        """The layer that maps of one subject go through."""
        if self.alignment is not None:
            return self.alignment.layer((self.height, self.width), box=self.box)
        return GlfaLayer(
            self.height,
            self.width,
            self.patch_size,
            self.kernel_size,
            self.global_part,
            self.local_part,
            self.box,
        )

    def align(self, fmri: Float[Array, "*b height width"]) -> Float[Array, "*b height width"]:
        """Maps in the common space; unchanged when the layer is off."""
        if not self.aligned:
            return fmri
        if not self.subjects:
            return self.func_align_layer(fmri)
        if fmri.ndim < 4 or fmri.shape[-4] != self.subjects:
            raise ValueError(
                f"fmri: {fmri.shape} must hold windows of {self.subjects} subjects along axis -4"
            )
        aligned = [layer(fmri[..., i, :, :, :]) for i, layer in enumerate(self.func_align_layers)]
        return jnp.stack(aligned, axis=-4)

    def encode(
        self, aligned: Float[Array, "*b w height width"], *, deterministic: bool = True
    ) -> Encoded:
        """What follows the alignment."""
        features = self.fmri_encoder.encode(aligned, deterministic=deterministic)
        condition = shard(self.fmri_encoder_proj(shard(features), deterministic=deterministic))
        seen = condition if self.head == "conv" else features[..., 0, :]
        embedding = self.fmri2clip(seen, deterministic=deterministic)
        return Encoded(aligned, features, condition.astype(jnp.float32), embedding)

    def __call__(
        self, fmri: Float[Array, "*b w height width"], *, deterministic: bool = True
    ) -> Encoded:
        if fmri.shape[-3] != self.window:
            raise ValueError(f"fmri: {fmri.shape[-3]} volumes a window, must be {self.window}")
        return self.encode(self.align(fmri), deterministic=deterministic)
