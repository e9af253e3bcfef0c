"""Parts of Wan's transformer: attention with normed queries and keys, and the modulated block.

Frames stay on an axis of their own, (b, f, n, c) with n positions of a frame: devices share them.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from glfa_jax.models.layers import (
    Dense,
    LayerNorm,
    RMSNorm,
    gelu_tanh,
    merge_heads,
    split_heads,
)
from glfa_jax.models.mesh_axes import from_heads, shard, side_by_side, to_heads
from glfa_jax.models.rotary import Rotary, rotate
from glfa_jax.ops.attention import attention


class WanAttention(nn.Module):
    """Attention of every position to all of its clip, or to `context`.

    Queries and keys are normed over all heads at once. In a clip, positions turn them.
    """

    num_heads: int
    head_dim: int
    epsilon: float
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b f n c"],
        *,
        context: Float[Array, "b k c"] | None = None,
        rotary: Rotary | None = None,
    ) -> Float[Array, "b f n c"]:
        def project(y: Array, name: str) -> Array:
            return Dense(self.num_heads * self.head_dim, dtype=self.dtype, name=name)(y)

        def norm(y: Array, name: str) -> Array:
            return RMSNorm(self.epsilon, dtype=self.dtype, name=name)(y)

        seen = x if context is None else context
        query = split_heads(norm(project(x, "to_q"), "norm_q"), self.num_heads)
        key = split_heads(norm(project(seen, "to_k"), "norm_k"), self.num_heads)
        value = split_heads(project(seen, "to_v"), self.num_heads)
        if rotary is not None:
            query, key = rotate(query, rotary), rotate(key, rotary)
        if context is None:
            y = attention(to_heads(query), to_heads(key), to_heads(value))
            y = from_heads(y, f=x.shape[1])
        else:
            y = attention(*side_by_side(query, key, value)).reshape(query.shape)
        return Dense(x.shape[-1], dtype=self.dtype, name="to_out.0")(merge_heads(y))


class WanBlock(nn.Module):
    """Attention in the clip, attention to the condition, feed-forward: each added to the input.

    The time shifts and scales what enters the first and the last of them and gates what they give;
    `modulation` is what the time says, to which every block adds a table of its own. Norms and
    modulation are float32 whatever is computed in.
    """

    num_heads: int
    head_dim: int
    ffn_dim: int
    epsilon: float
    cross_attn_norm: bool
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b f n c"],
        *,
        modulation: Float[Array, "b 6 c"],
        context: Float[Array, "b k c"],
        rotary: Rotary,
    ) -> Float[Array, "b f n c"]:
        def attend(name: str) -> WanAttention:
            return WanAttention(self.num_heads, self.head_dim, self.epsilon, self.dtype, name=name)

        def norm(name: str, shift: Array, scale: Array) -> Array:
            y = LayerNorm(self.epsilon, affine=False, name=name)(x)
            return modulate(y, shift=shift, scale=scale).astype(self.dtype)

        def add(y: Array, gate: Array | float = 1.0) -> Array:
            return shard((x + y * gate).astype(self.dtype), over_frame=1)

        width = x.shape[-1]
        table = modulation_table(self, 6, width)
        shift, scale, gate, ff_shift, ff_scale, ff_gate = jnp.moveaxis(table + modulation, 1, 0)

        y = attend("attn1")(norm("norm1", shift, scale), rotary=rotary)
        x = add(y, gate[:, None, None])

        y = x
        if self.cross_attn_norm:
            y = LayerNorm(self.epsilon, dtype=self.dtype, name="norm2")(x)
        x = add(attend("attn2")(y, context=context))

        y = norm("norm3", ff_shift, ff_scale)
        y = gelu_tanh(Dense(self.ffn_dim, dtype=self.dtype, name="ffn.net.0.proj")(y))
        y = Dense(width, dtype=self.dtype, name="ffn.net.2")(y)
        return add(y, ff_gate[:, None, None])


def modulation_table(module: nn.Module, rows: int, width: int) -> Float[Array, "1 r c"]:
    """The parameter of a module's own shifts, scales and gates."""
    small = nn.initializers.normal(width**-0.5)
    return module.param("scale_shift_table", small, (1, rows, width)).astype(jnp.float32)


def modulate(
    x: Float[Array, "b f n c"], *, shift: Float[Array, "b c"], scale: Float[Array, "b c"]
) -> Float[Array, "b f n c"]:
    """x (1 + scale) + shift, the same for all positions of a clip."""
    return x * (1 + scale[:, None, None]) + shift[:, None, None]
