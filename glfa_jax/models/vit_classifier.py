"""ViT image classifier in transformers' layout (ViTForImageClassification).

Source: Dosovitskiy et al. 2021.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from glfa_jax.models.pretrained_encoder import PatchEmbed, Tower

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


class VitClassifier(Tower, kw_only=True):
    """ViTForImageClassification: the class token's logits; there is no pooler."""

    title = "ViT"
    model_types = ("vit",)
    defaults = _DEFAULTS

    num_labels: int
    image_size: int
    patch_size: int
    qkv_bias: bool

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w 3"], *, deterministic: bool = True
    ) -> Float[Array, "b k"]:
        """`image`: normalised as the model's preprocessor_config.json says. Float32 logits."""
        self.require_shape("images", image, (self.image_size, self.image_size, 3))
        x = PatchEmbed(
            self.hidden_size,
            (self.patch_size, self.patch_size),
            dtype=self.dtype,
            name="vit.embeddings.patch_embeddings.projection",
        )(image)
        small = nn.initializers.normal(0.02)
        first = self.param("vit.embeddings.cls_token", small, (1, 1, self.hidden_size))
        x = self.after_class_token(first, x)
        position = self.param("vit.embeddings.position_embeddings", small, (1, *x.shape[1:]))
        x = x + position.astype(self.dtype)
        x = nn.Dropout(self.dropout)(x, deterministic=deterministic)
        x = self.encode(
            x,
            names="vit.encoder.layer",
            query_value_bias=self.qkv_bias,
            key_bias=self.qkv_bias,
            deterministic=deterministic,
        )
        x = self.norm("vit.layernorm")(x[:, 0])
        return nn.Dense(self.num_labels, dtype=self.dtype, name="classifier")(x).astype(jnp.float32)
