"""VideoMAE video classifier in transformers' layout (VideoMAEForVideoClassification).

Source: Tong et al. 2022.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from glfa_jax.models import pretrained_config
from glfa_jax.models.config_values import require_table_size
from glfa_jax.models.equal_blocks import run_equal
from glfa_jax.models.layers import LayerNorm
from glfa_jax.models.pretrained_encoder import ACTIVATIONS, EncoderBlock, PatchEmbed

# What transformers takes for keys that a config.json leaves out.
_DEFAULTS = {
    "image_size": 224,
    "patch_size": 16,
    "num_frames": 16,
    "tubelet_size": 2,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "qkv_bias": True,
    "use_mean_pooling": True,
}
# The norm before the classifier does not follow layer_norm_eps.
_POOLED_EPS = 1e-5


class Classified(NamedTuple):
    logits: Float[Array, "b k"]
    features: Float[Array, "b d"]


def sinusoids(length: int, *, width: int) -> np.ndarray:
    """Fixed position table (length, width): sines in even channels, cosines in odd ones."""
    require_table_size(length, width)
    rate = 10000.0 ** (-2 * (np.arange(width) // 2) / width)
    angle = np.arange(length)[:, None] * rate
    table = np.where(np.arange(width) % 2 == 0, np.sin(angle), np.cos(angle))
    return table.astype(np.float32)


class VideoMaeClassifier(nn.Module):
    """VideoMAEForVideoClassification. `qkv_bias` biases queries and values, never keys."""

    num_labels: int
    image_size: int
    patch_size: int
    num_frames: int
    tubelet_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str
    layer_norm_eps: float
    qkv_bias: bool
    use_mean_pooling: bool
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **options: Any) -> "VideoMaeClassifier":
        """From a config.json; `options`: dropout, dtype."""
        allowed = {
            "model_type": ("videomae",),
            "hidden_act": tuple(ACTIVATIONS),
            "num_channels": (3,),
        }
        if "qv_bias" in config:  # its name since transformers 5
            config = {**config, "qkv_bias": config["qv_bias"]}
        picked = pretrained_config.fields(
            config, model="VideoMAE", module=cls, defaults=_DEFAULTS, allowed=allowed
        )
        if picked["num_frames"] % picked["tubelet_size"]:
            raise ValueError(
                f"VideoMAE configuration: num_frames {picked['num_frames']} is no multiple of "
                f"tubelet_size {picked['tubelet_size']}"
            )
        labels = pretrained_config.num_labels(config, model="VideoMAE", module=cls)
        return cls(num_labels=labels, **picked, **options)

    def __call__(
        self, video: Float[Array, "b f h w 3"], *, deterministic: bool = True
    ) -> Float[Array, "b k"]:
        """`video`: normalised as the model's preprocessor_config.json says. Float32 logits."""
        return self.classify(video, deterministic=deterministic).logits

    @nn.compact
    def classify(
        self, video: Float[Array, "b f h w 3"], *, deterministic: bool = True
    ) -> Classified:
        """Logits, and the features that they are read from."""
        expected = (self.num_frames, self.image_size, self.image_size, 3)
        if video.shape[1:] != expected:
            raise ValueError(f"VideoMAE: videos are {video.shape[1:]}, must be {expected}")
        x = PatchEmbed(
            self.hidden_size,
            (self.tubelet_size, self.patch_size, self.patch_size),
            dtype=self.dtype,
            name="videomae.embeddings.patch_embeddings.projection",
        )(video)
        x = x + jnp.asarray(sinusoids(x.shape[1], width=self.hidden_size), self.dtype)
        blocks = [
            EncoderBlock(
                hidden_size=self.hidden_size,
                num_attention_heads=self.num_attention_heads,
                intermediate_size=self.intermediate_size,
                hidden_act=self.hidden_act,
                layer_norm_eps=self.layer_norm_eps,
                query_value_bias=self.qkv_bias,
                key_bias=False,
                dropout=self.dropout,
                dtype=self.dtype,
                name=f"videomae.encoder.layer.{i}",
            )
            for i in range(self.num_hidden_layers)
        ]
        x = run_equal(blocks, x, deterministic=deterministic)
        if self.use_mean_pooling:
            norm = LayerNorm(epsilon=_POOLED_EPS, dtype=self.dtype, name="fc_norm")
            x = norm(x.mean(axis=1))
        else:
            norm = LayerNorm(
                epsilon=self.layer_norm_eps, dtype=self.dtype, name="videomae.layernorm"
            )
            x = norm(x[:, 0])
        logits = nn.Dense(self.num_labels, dtype=self.dtype, name="classifier")(x)
        return Classified(logits.astype(jnp.float32), x.astype(jnp.float32))
