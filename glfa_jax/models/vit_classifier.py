"""ViT image classifier in transformers' layout (ViTForImageClassification).

Source: Dosovitskiy et al. 2021.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from glfa_jax.models import pretrained_config
from glfa_jax.models.equal_blocks import run_equal
from glfa_jax.models.layers import LayerNorm
from glfa_jax.models.pretrained_encoder import ACTIVATIONS, EncoderBlock, PatchEmbed

# What transformers takes for keys that a config.json leaves out.
_DEFAULTS = {
    "image_size": 224,
    "patch_size": 16,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "qkv_bias": True,
}


class VitClassifier(nn.Module):
    """ViTForImageClassification: the class token's logits; there is no pooler."""

    num_labels: int
    image_size: int
    patch_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str
    layer_norm_eps: float
    qkv_bias: bool
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **options: Any) -> "VitClassifier":
        """From a config.json; `options`: dropout, dtype."""
        allowed = {
            "model_type": ("vit",),
            "hidden_act": tuple(ACTIVATIONS),
            "num_channels": (3,),
        }
        picked = pretrained_config.fields(
            config, model="ViT", module=cls, defaults=_DEFAULTS, allowed=allowed
        )
        labels = pretrained_config.num_labels(config, model="ViT", module=cls)
        return cls(num_labels=labels, **picked, **options)

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w 3"], *, deterministic: bool = True
    ) -> Float[Array, "b k"]:
        """`image`: normalised as the model's preprocessor_config.json says. Float32 logits."""
        expected = (self.image_size, self.image_size, 3)
        if image.shape[1:] != expected:
            raise ValueError(f"ViT: images are {image.shape[1:]}, must be {expected}")
        x = PatchEmbed(
            self.hidden_size,
            (self.patch_size, self.patch_size),
            dtype=self.dtype,
            name="vit.embeddings.patch_embeddings.projection",
        )(image)
        small = nn.initializers.normal(0.02)
        first = self.param("vit.embeddings.cls_token", small, (1, 1, self.hidden_size))
        first = jnp.broadcast_to(first.astype(self.dtype), (x.shape[0], 1, self.hidden_size))
        x = jnp.concatenate([first, x], axis=1)
        position = self.param("vit.embeddings.position_embeddings", small, (1, *x.shape[1:]))
        x = x + position.astype(self.dtype)
        x = nn.Dropout(self.dropout)(x, deterministic=deterministic)
        blocks = [
            EncoderBlock(
                hidden_size=self.hidden_size,
                num_attention_heads=self.num_attention_heads,
                intermediate_size=self.intermediate_size,
                hidden_act=self.hidden_act,
                layer_norm_eps=self.layer_norm_eps,
                query_value_bias=self.qkv_bias,
                key_bias=self.qkv_bias,
                dropout=self.dropout,
                dtype=self.dtype,
                name=f"vit.encoder.layer.{i}",
            )
            for i in range(self.num_hidden_layers)
        ]
        x = run_equal(blocks, x, deterministic=deterministic)
        norm = LayerNorm(epsilon=self.layer_norm_eps, dtype=self.dtype, name="vit.layernorm")
        x = norm(x[:, 0])
        return nn.Dense(self.num_labels, dtype=self.dtype, name="classifier")(x).astype(jnp.float32)
