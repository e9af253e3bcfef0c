"""What CLIP, ViT and VideoMAE share: the pre-norm transformer block and the patch embedding.

The block carries CLIP's parameter names; the tables of the other two rename them.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from glfa_jax.models.layers import LayerNorm, attention, gelu, merge_heads, split_heads


def quick_gelu(x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """The sigmoid approximation of GELU that OpenAI's CLIP was trained with."""
    return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS = {"gelu": gelu, "quick_gelu": quick_gelu}


class EncoderBlock(nn.Module):
    """x += attention(norm(x)); x += mlp(norm(x)); dropout on both branches."""

    hidden_size: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str
    layer_norm_eps: float
    query_value_bias: bool = True
    key_bias: bool = True
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        *,
        mask: Bool[Array, "..."] | None = None,
        deterministic: bool = True,
    ) -> Float[Array, "b n d"]:
        def dense(name: str, width: int, use_bias: bool = True) -> nn.Dense:
            return nn.Dense(width, use_bias=use_bias, dtype=self.dtype, name=name)

        def norm(name: str) -> LayerNorm:
            return LayerNorm(epsilon=self.layer_norm_eps, dtype=self.dtype, name=name)

        def drop(y: Array) -> Array:
            return nn.Dropout(self.dropout)(y, deterministic=deterministic)

        biases = {"q": self.query_value_bias, "k": self.key_bias, "v": self.query_value_bias}
        y = norm("layer_norm1")(x)
        query, key, value = (
            split_heads(
                dense(f"self_attn.{part}_proj", self.hidden_size, bias)(y),
                self.num_attention_heads,
            )
            for part, bias in biases.items()
        )
        y = merge_heads(attention(query, key, value, mask=mask))
        x = x + drop(dense("self_attn.out_proj", self.hidden_size)(y))

        y = dense("mlp.fc1", self.intermediate_size)(norm("layer_norm2")(x))
        y = dense("mlp.fc2", self.hidden_size)(ACTIVATIONS[self.hidden_act](y))
        return x + drop(y)


class PatchEmbed(nn.Module):
    """A convolution whose stride is its kernel, in row-major order of the patches.

    The kernel is stored as a convolution's, but multiplied as a matrix: convolutions in three
    dimensions and their gradients are slow on CPUs.
    """

    features: int
    patch: tuple[int, ...]
    use_bias: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b *size c"]) -> Float[Array, "b n d"]:
        batch, *size, channels = x.shape
        for axis, (length, patch) in enumerate(zip(size, self.patch, strict=True)):
            if length % patch:
                raise ValueError(
                    f"{self.name}: axis {axis + 1} of the input has length {length}, "
                    f"which is no multiple of the patch's {patch}"
                )
        kernel = self.param(
            "kernel",
            nn.initializers.lecun_normal(),
            (*self.patch, channels, self.features),
        )
        cells = [length // patch for length, patch in zip(size, self.patch, strict=True)]
        # (b, cells and patch sides in turn, c) -> (b, cells, patch sides, c)
        sides = [n for pair in zip(cells, self.patch, strict=True) for n in pair]
        rank = len(cells)
        order = (0, *range(1, 2 * rank, 2), *range(2, 2 * rank + 1, 2), 2 * rank + 1)
        x = x.reshape(batch, *sides, channels).transpose(order)
        x = x.reshape(batch, -1, kernel.size // self.features).astype(self.dtype)
        x = x @ kernel.reshape(-1, self.features).astype(self.dtype)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
            x = x + bias.astype(self.dtype)
        return x
