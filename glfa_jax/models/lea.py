"""LEA carried over to video: linear maps of a frozen encoder's [CLS] features (SPEC §6.3)."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from glfa_jax.models.conditioning import unit
from glfa_jax.models.fmri_autoencoder import FmriAutoencoder
from glfa_jax.models.fmri_encoder import Encoded


class CentredLinear(nn.Module):
    """A linear map of the difference from `centre`.

    In float32 whatever the rest computes in: features of different windows differ by little.
    """

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "*b p"]) -> Float[Array, "*b q"]:
        centre = self.param("centre", nn.initializers.zeros, x.shape[-1:])
        return nn.Dense(self.width, name="linear")(x.astype(jnp.float32) - centre)


class Lea(nn.Module):
    """In the place of FmriEncoder; nothing in it is trained by gradients, and nothing aligned.

    `window` volumes make one condition of `tokens` tokens of `token_dim`, and an embedding in
    CLIP's joint space of `clip_dim`. `dim` and what follows are of the encoder, which computes in
    `dtype`.
    """

    height: int
    width: int
    window: int
    tokens: int
    token_dim: int
    clip_dim: int
    patch_size: int = 16
    dim: int = 1024
    depth: int = 24
    num_heads: int = 16
    mlp_ratio: float = 4.0
    dtype: DTypeLike = jnp.float32

    def setup(self):
        self.encoder = FmriAutoencoder(
            self.height,
            self.width,
            self.patch_size,
            self.dim,
            self.depth,
            num_heads=self.num_heads,
            mlp_ratio=self.mlp_ratio,
            decoder=False,
            dtype=self.dtype,
        )
        self.to_tokens = CentredLinear(self.tokens * self.token_dim)
        self.to_image = CentredLinear(self.clip_dim)

    def features(self, fmri: Float[Array, "*b w height width"]) -> Float[Array, "*b w n d"]:
        if fmri.shape[-3] != self.window:
            raise ValueError(f"fmri: {fmri.shape[-3]} volumes a window, must be {self.window}")
        return self.encoder.encode(fmri)

    def __call__(
        self, fmri: Float[Array, "*b w height width"], *, deterministic: bool = True
    ) -> Encoded:
        """deterministic: makes no difference, for there is no dropout."""
        return self.encode(fmri)

    def encode(self, fmri: Float[Array, "*b w height width"]) -> Encoded:
        """The same: there is no alignment before it."""
        features = self.features(fmri)
        seen = cls_of(features)
        condition = self.to_tokens(seen)
        condition = condition.reshape(*condition.shape[:-1], self.tokens, self.token_dim)
        return Encoded(fmri, features, condition, unit(self.to_image(seen)))


def cls_of(features: Float[Array, "*b w n d"]) -> Float[Array, "*b p"]:
    """[CLS] of every volume of the window, concatenated."""
    cls = features[..., 0, :]
    return cls.reshape(*cls.shape[:-2], -1)
