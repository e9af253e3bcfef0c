"""What CLIP, ViT and VideoMAE share: one pre-norm transformer tower and the patch embedding.

The blocks carry CLIP's parameter names; the tables of the other two rename them.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from glfa_jax.models import pretrained_config
from glfa_jax.models.equal_blocks import run_equal
from glfa_jax.models.layers import LayerNorm, gelu, merge_heads, split_heads
from glfa_jax.ops.attention import attention


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


class Tower(nn.Module):
    """Base of the pretrained encoders; fields as in transformers' config.json.

    title: what messages call the model. model_types: those that a config.json may name.
    defaults: what transformers takes for keys that a config.json leaves out.
    """

    title: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]]
    defaults: ClassVar[Mapping[str, Any]]

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str
    layer_norm_eps: float
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **options: Any) -> Self:
        """From a config.json; `options`: dropout, dtype.

        Raises ValueError naming every option that is not supported.
        """
        picked = pretrained_config.fields(
            config,
            model=cls.title,
            module=cls,
            defaults=cls.defaults,
            allowed={
                "model_type": cls.model_types,
                "hidden_act": tuple(ACTIVATIONS),
                **({"num_channels": (3,)} if "image_size" in cls.defaults else {}),
            },
        )
        if "num_labels" in cls.__dataclass_fields__:
            picked["num_labels"] = pretrained_config.num_labels(config, model=cls.title, module=cls)
        return cls(**picked, **options)

    @nn.nowrap
    def require_shape(self, what: str, x: Array, expected: tuple[int, ...]) -> None:
        if x.shape[1:] != expected:
            raise ValueError(f"{self.title}: {what} are {x.shape[1:]}, must be {expected}")

    @nn.nowrap
    def norm(self, name: str, *, epsilon: float | None = None) -> LayerNorm:
        """With `layer_norm_eps` unless another is given."""
        epsilon = self.layer_norm_eps if epsilon is None else epsilon
        return LayerNorm(epsilon=epsilon, dtype=self.dtype, name=name)

    @nn.nowrap
    def after_class_token(
        self, token: Float[Array, "..."], x: Float[Array, "b n d"]
    ) -> Float[Array, "b n+1 d"]:
        first = jnp.broadcast_to(token.astype(self.dtype), (x.shape[0], 1, self.hidden_size))
        return jnp.concatenate([first, x], axis=1)

    @nn.nowrap
    def encode(
        self,
        x: Float[Array, "b n d"],
        *,
        names: str,
        query_value_bias: bool = True,
        key_bias: bool = True,
        mask: Bool[Array, "..."] | None = None,
        deterministic: bool,
    ) -> Float[Array, "b n d"]:
        """All blocks; the i-th holds its parameters under `names`.i."""
        blocks = [
            EncoderBlock(
                hidden_size=self.hidden_size,
                num_attention_heads=self.num_attention_heads,
                intermediate_size=self.intermediate_size,
                hidden_act=self.hidden_act,
                layer_norm_eps=self.layer_norm_eps,
                query_value_bias=query_value_bias,
                key_bias=key_bias,
                dropout=self.dropout,
                dtype=self.dtype,
                name=f"{names}.{i}",
            )
            for i in range(self.num_hidden_layers)
        ]
        return run_equal(blocks, x, mask=mask, deterministic=deterministic)


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
