"""UMT5Text: the text encoder of Wan, in transformers' layout (UMT5EncoderModel).

Sources: Raffel et al. 2020 (T5); Chung et al. 2023 (UMT5), where every layer has a position bias of
its own.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from glfa_jax.models import pretrained_config
from glfa_jax.models.layers import RMSNorm, gelu_tanh, merge_heads, split_heads

_DEFAULTS = {
    "vocab_size": 250112,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 1024,
    "num_layers": 8,
    "num_heads": 6,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6,
    "pad_token_id": 0,
}


class Encoded(NamedTuple):
    """`hidden`: every token after the final norm, zero where there is padding."""

    hidden: Float[Array, "b n d"]


class Attention(nn.Module):
    """Self-attention whose scores are not scaled, with a bias for each distance and head."""

    num_heads: int
    head_dim: int
    buckets: int
    max_distance: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], *, mask: Bool[Array, "b n"]
    ) -> Float[Array, "b n d"]:
        def dense(width: int, name: str) -> nn.Dense:
            return nn.Dense(width, use_bias=False, dtype=self.dtype, name=name)

        query, key, value = (
            split_heads(dense(self.num_heads * self.head_dim, name)(x), self.num_heads)
            for name in ("q", "k", "v")
        )
        table = nn.Embed(self.buckets, self.num_heads, name="relative_attention_bias")
        where = distance_buckets(x.shape[1], count=self.buckets, max_distance=self.max_distance)
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
        scores = scores + jnp.moveaxis(table(where), -1, 0).astype(jnp.float32)
        scores = jnp.where(mask[:, None, None], scores, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores, axis=-1).astype(self.dtype)
        y = merge_heads(jnp.einsum("bhqk,bkhd->bqhd", weights, value))
        return dense(x.shape[-1], "o")(y)


class Block(nn.Module):
    """x += attention(norm(x)); x += gated feed-forward(norm(x))."""

    num_heads: int
    head_dim: int
    hidden: int
    buckets: int
    max_distance: int
    epsilon: float
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], *, mask: Bool[Array, "b n"]
    ) -> Float[Array, "b n d"]:
        def norm(name: str) -> RMSNorm:
            return RMSNorm(self.epsilon, dtype=self.dtype, name=f"{name}.layer_norm")

        def dense(width: int, name: str) -> nn.Dense:
            name = f"layer.1.DenseReluDense.{name}"
            return nn.Dense(width, use_bias=False, dtype=self.dtype, name=name)

        attend = Attention(
            self.num_heads,
            self.head_dim,
            self.buckets,
            self.max_distance,
            dtype=self.dtype,
            name="layer.0.SelfAttention",
        )
        x = x + attend(norm("layer.0")(x), mask=mask)
        y = norm("layer.1")(x)
        y = gelu_tanh(dense(self.hidden, "wi_0")(y)) * dense(self.hidden, "wi_1")(y)
        return x + dense(x.shape[-1], "wo")(y)


class UMT5Text(nn.Module):
    """UMT5EncoderModel; fields as in its config.json, `dtype` is what is computed in."""

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_heads: int
    relative_attention_num_buckets: int
    relative_attention_max_distance: int
    layer_norm_epsilon: float
    pad_token_id: int
    dtype: DTypeLike = jnp.float32

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **options: Any) -> "UMT5Text":
        """From a config.json; `options`: dtype.

        Raises ValueError naming every option that is not supported.
        """
        picked = pretrained_config.fields(
            config,
            model="UMT5",
            module=cls,
            defaults=_DEFAULTS,
            allowed={
                "model_type": ("umt5",),
                "feed_forward_proj": ("gated-gelu",),
                "dense_act_fn": ("gelu_new",),
                "is_gated_act": (True,),
                "is_decoder": (False,),
            },
        )
        return cls(**picked, **options)

    def __post_init__(self) -> None:
        super().__post_init__()
        exact = self.relative_attention_num_buckets // 4
        if not 0 < exact < self.relative_attention_max_distance:
            raise ValueError(
                f"UMT5: {self.relative_attention_num_buckets} relative_attention_num_buckets, must "
                "be 4 or more, and a quarter of them below relative_attention_max_distance "
                f"{self.relative_attention_max_distance}"
            )

    @nn.compact
    def __call__(self, tokens: Int[Array, "b n"]) -> Encoded:
        """`tokens`: captions of any length, filled up with `pad_token_id`, which no token sees.

        Wan's pipeline puts zeros where there is padding, and so do we.
        """
        mask = tokens != self.pad_token_id
        embed = nn.Embed(self.vocab_size, self.d_model, dtype=self.dtype, name="shared")
        x = embed(tokens)
        # One by one: stacked to be looped over, the layers would take their memory twice.
        for i in range(self.num_layers):
            x = Block(
                self.num_heads,
                self.d_kv,
                self.d_ff,
                self.relative_attention_num_buckets,
                self.relative_attention_max_distance,
                self.layer_norm_epsilon,
                dtype=self.dtype,
                name=f"encoder.block.{i}",
            )(x, mask=mask)
        x = RMSNorm(self.layer_norm_epsilon, dtype=self.dtype, name="encoder.final_layer_norm")(x)
        return Encoded(jnp.where(mask[..., None], x, 0))


def distance_buckets(length: int, *, count: int, max_distance: int) -> np.ndarray:
    """(length, length): the bucket of the distance from each token, down, to each token, across.

    Half of the buckets are for tokens behind. Of each half, half are for single distances, the rest
    for ranges that grow up to `max_distance`. In float32, as PyTorch rounds at their bounds.
    """
    half, exact = count // 2, count // 2 // 2
    distance = np.arange(length)[None] - np.arange(length)[:, None]
    near = np.abs(distance)
    ratio = np.log(np.maximum(near, 1).astype(np.float32) / np.float32(exact))
    ratio = ratio / np.float32(math.log(max_distance / exact)) * np.float32(half - exact)
    far = np.minimum(exact + ratio.astype(np.int64), half - 1)
    return np.where(near < exact, near, far) + half * (distance > 0)
