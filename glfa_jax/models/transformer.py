"""The pre-norm transformer of the fMRI encoder and the conditioning stack (SPEC §2.1, §2.3)."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from glfa_jax.models.layers import Dense, LayerNorm, gelu, merge_heads, split_heads
from glfa_jax.ops.attention import attention


class Attention(nn.Module):
    """Self-attention over the second-to-last axis, query, key and value from one projection."""

    num_heads: int
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b n d"], *, deterministic: bool = True
    ) -> Float[Array, "*b n d"]:
        width = x.shape[-1]
        qkv = Dense(3 * width, dtype=self.dtype, name="qkv")(x)
        query, key, value = (split_heads(part, self.num_heads) for part in jnp.split(qkv, 3, -1))
        drop = nn.Dropout(self.dropout, deterministic=deterministic)
        # Without it, no weights need to be held.
        dropout = None if deterministic or not self.dropout else drop
        x = merge_heads(attention(query, key, value, dropout=dropout))
        return drop(Dense(width, dtype=self.dtype, name="proj")(x))


class Mlp(nn.Module):
    """Two linear maps with GELU between them."""

    hidden: int
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b n d"], *, deterministic: bool = True
    ) -> Float[Array, "*b n d"]:
        drop = nn.Dropout(self.dropout, deterministic=deterministic)
        hidden = drop(gelu(Dense(self.hidden, dtype=self.dtype, name="fc1")(x)))
        return drop(Dense(x.shape[-1], dtype=self.dtype, name="fc2")(hidden))


class Block(nn.Module):
    """Pre-norm block; dropout, attention dropout and stochastic depth share one rate."""

    num_heads: int
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b n d"], *, deterministic: bool = True
    ) -> Float[Array, "*b n d"]:
        # Stochastic depth: one coin per sample, for the whole residual branch.
        skip = nn.Dropout(self.dropout, broadcast_dims=(-2, -1), deterministic=deterministic)
        attend = Attention(self.num_heads, self.dropout, self.dtype, name="attn")
        mlp = Mlp(int(x.shape[-1] * self.mlp_ratio), self.dropout, self.dtype, name="mlp")
        normed = LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm1")(x)
        x = x + skip(attend(normed, deterministic=deterministic))
        normed = LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm2")(x)
        return x + skip(mlp(normed, deterministic=deterministic))
