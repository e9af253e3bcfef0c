"""From encoder features to what stands where text embeddings stand (SPEC §2.3)."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from glfa_jax.models.layers import LayerNorm, gelu
from glfa_jax.models.transformer import Attention, Mlp


class SpaceTimeBlock(nn.Module):
    """Attention over the tokens of a volume, then over the window, then an MLP."""

    num_heads: int
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b w n d"], *, deterministic: bool = True
    ) -> Float[Array, "*b w n d"]:
        def norm(name: str) -> LayerNorm:
            return LayerNorm(epsilon=1e-5, dtype=self.dtype, name=name)

        space = Attention(self.num_heads, self.dropout, self.dtype, name="attn")
        time = Attention(self.num_heads, self.dropout, self.dtype, name="attn_temp")
        mlp = Mlp(x.shape[-1], self.dropout, self.dtype, name="mlp")

        x = x + space(norm("norm1")(x), deterministic=deterministic)
        per_token = jnp.swapaxes(norm("norm_temp")(x), -3, -2)
        x = x + jnp.swapaxes(time(per_token, deterministic=deterministic), -3, -2)
        return x + mlp(norm("norm2")(x), deterministic=deterministic)


class TokenMapper(nn.Module):
    """Maps all tokens of the window to as many as the generator is conditioned on.

    width: of these; None for that of the window's.
    """

    tokens: int
    hidden_tokens: int
    width: int | None = None
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b m d"], *, deterministic: bool = True
    ) -> Float[Array, "*b n e"]:
        def dense(width: int, name: str) -> nn.Dense:
            return nn.Dense(width, use_bias=False, dtype=self.dtype, name=name)

        width = self.width or x.shape[-1]
        x = jnp.swapaxes(x, -1, -2)
        x = dense(self.hidden_tokens, "channel_mapper.0")(x)
        x = dense(self.tokens, "channel_mapper.1")(x)
        projected = dense(width, "projection")(jnp.swapaxes(x, -1, -2))
        out = dense(width, "fc")(gelu(projected))
        return nn.Dropout(self.dropout, deterministic=deterministic)(out) + projected


class Conditioning(nn.Module):
    """Space-time block and token mapper: the conditioning sequence of the video generator."""

    tokens: int
    hidden_tokens: int
    num_heads: int = 16
    width: int | None = None
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, features: Float[Array, "*b w n d"], *, deterministic: bool = True
    ) -> Float[Array, "*b m e"]:
        block = SpaceTimeBlock(self.num_heads, self.dropout, self.dtype, name="attn")
        mapper = TokenMapper(
            self.tokens,
            self.hidden_tokens,
            self.width,
            self.dropout,
            self.dtype,
            name="cond_state_transform",
        )
        x = block(features, deterministic=deterministic)
        x = x.reshape(*x.shape[:-3], x.shape[-3] * x.shape[-2], x.shape[-1])
        return mapper(x, deterministic=deterministic)


def unit(x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    x = x.astype(jnp.float32)
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


class ConvHead(nn.Module):
    """CLIP-space embedding of a conditioning sequence: tokens shrink to one in three steps."""

    hidden_tokens: tuple[int, int]
    dim: int
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, sequence: Float[Array, "*b n d"], *, deterministic: bool = True
    ) -> Float[Array, "*b e"]:
        def dense(width: int, name: str) -> nn.Dense:
            return nn.Dense(width, use_bias=False, dtype=self.dtype, name=name)

        drop = nn.Dropout(self.dropout, deterministic=deterministic)
        x = jnp.swapaxes(sequence, -1, -2)
        # Odd indices are the dropout layers of the original's list.
        x = drop(dense(self.hidden_tokens[0], "channel_mapper.0")(x))
        x = drop(dense(self.hidden_tokens[1], "channel_mapper.2")(x))
        x = dense(1, "channel_mapper.4")(x)
        return unit(nn.Dense(self.dim, dtype=self.dtype, name="dim_mapper")(x[..., 0]))


class LinearHead(nn.Module):
    """CLIP-space embedding from the [CLS] tokens of the window, concatenated."""

    dim: int
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, cls_tokens: Float[Array, "*b w d"], *, deterministic: bool = True
    ) -> Float[Array, "*b e"]:
        x = cls_tokens.reshape(*cls_tokens.shape[:-2], -1)
        x = nn.Dropout(self.dropout, deterministic=deterministic)(x)
        return unit(nn.Dense(self.dim, dtype=self.dtype, name="1")(x))
