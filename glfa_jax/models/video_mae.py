"""VideoMAE video classifier in transformers' layout (VideoMAEForVideoClassification).

Source: Tong et al. 2022.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from glfa_jax.models.config_values import require_table_size
from glfa_jax.models.pretrained_encoder import PatchEmbed, Tower

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


class VideoMaeClassifier(Tower, kw_only=True):
    """VideoMAEForVideoClassification. `qkv_bias` biases queries and values, never keys."""

    title = "VideoMAE"
    model_types = ("videomae",)
    defaults = _DEFAULTS

    num_labels: int
    image_size: int
    patch_size: int
    num_frames: int
    tubelet_size: int
    qkv_bias: bool
    use_mean_pooling: bool

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **options: Any) -> Self:
        if "qv_bias" in config:  # its name since transformers 5
            config = {**config, "qkv_bias": config["qv_bias"]}
        made = super().from_config(config, **options)
        if made.num_frames % made.tubelet_size:
            raise ValueError(
                f"VideoMAE configuration: num_frames {made.num_frames} is no multiple of "
                f"tubelet_size {made.tubelet_size}"
            )
        return made

    def __call__(
        self, video: Float[Array, "b f h w 3"], *, deterministic: bool = True
    ) -> Float[Array, "b k"]:
        """`video`: normalised as the model's preprocessor_config.json says. Float32 logits."""
        return self.classify(video, deterministic=deterministic).logits

    @nn.compact
    def classify(
        self, video: Float[Array, "b f h w 3"], *, deterministic: bool = True
    ) -> Classified:
        """Logits, and the features that they are read from.

        Frames left over at the end of `video`, which make no whole tubelet, are not seen.
        """
        if video.ndim == 5 and 0 < video.shape[1] - self.num_frames < self.tubelet_size:
            video = video[:, : self.num_frames]
        expected = (self.num_frames, self.image_size, self.image_size, 3)
        self.require_shape("videos", video, expected)
        x = PatchEmbed(
            self.hidden_size,
            (self.tubelet_size, self.patch_size, self.patch_size),
            dtype=self.dtype,
            name="videomae.embeddings.patch_embeddings.projection",
        )(video)
        x = x + jnp.asarray(sinusoids(x.shape[1], width=self.hidden_size), self.dtype)
        x = self.encode(
            x,
            names="videomae.encoder.layer",
            query_value_bias=self.qkv_bias,
            key_bias=False,
            deterministic=deterministic,
        )
        if self.use_mean_pooling:
            x = self.norm("fc_norm", epsilon=_POOLED_EPS)(x.mean(axis=1))
        else:
            x = self.norm("videomae.layernorm")(x[:, 0])
        logits = nn.Dense(self.num_labels, dtype=self.dtype, name="classifier")(x)
        return Classified(logits.astype(jnp.float32), x.astype(jnp.float32))
