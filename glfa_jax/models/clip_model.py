"""CLIP in transformers' layout: text and vision encoders and their joint space.

Sources: Radford et al. 2021 (CLIP); Cherti et al. 2023 (OpenCLIP). Parameter names follow the
transformers classes CLIPTextModel, CLIPVisionModel and CLIPModel.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from glfa_jax.models.config_values import misfits
from glfa_jax.models.pretrained_encoder import PatchEmbed, Tower

_SHARED_DEFAULTS = {"num_hidden_layers": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_TEXT_DEFAULTS = _SHARED_DEFAULTS | {
    "hidden_size": 512,
    "num_attention_heads": 8,
    "intermediate_size": 2048,
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}
_VISION_DEFAULTS = _SHARED_DEFAULTS | {
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "image_size": 224,
    "patch_size": 32,
}
# ln(1 / 0.07), as transformers rounds it.
_LOGIT_SCALE = 2.6592


class TextOutput(NamedTuple):
    """`hidden`: every token after the final layer norm; `pooled`: the end-of-text token."""

    hidden: Float[Array, "b n d"]
    pooled: Float[Array, "b d"]


class ClipOutput(NamedTuple):
    """L2-normalised embeddings, and the logarithm of what their inner products are scaled by."""

    image: Float[Array, "b d"]
    text: Float[Array, "b d"]
    logit_scale: Float[Array, ""]


class ClipText(Tower, kw_only=True):
    """CLIPTextModel."""

    title = "CLIP text"
    model_types = ("clip_text_model", "clip")
    defaults = _TEXT_DEFAULTS

    vocab_size: int
    max_position_embeddings: int
    eos_token_id: int

    @nn.compact
    def __call__(self, tokens: Int[Array, "b n"], *, deterministic: bool = True) -> TextOutput:
        """`tokens`: padded captions. No padding mask: padding comes last and the mask is causal."""
        length = tokens.shape[1]
        if length > self.max_position_embeddings:
            raise ValueError(
                f"CLIP text: {length} tokens given, at most {self.max_position_embeddings} fit"
            )
        small = nn.initializers.normal(0.02)
        embed = nn.Embed(
            self.vocab_size,
            self.hidden_size,
            embedding_init=small,
            dtype=self.dtype,
            name="embeddings.token_embedding",
        )
        position = nn.Embed(
            self.max_position_embeddings,
            self.hidden_size,
            embedding_init=small,
            dtype=self.dtype,
            name="embeddings.position_embedding",
        )
        x = embed(tokens) + position(jnp.arange(length))
        mask = jnp.tril(jnp.ones((length, length), bool))
        x = self.encode(x, names="encoder.layers", mask=mask, deterministic=deterministic)
        x = self.norm("final_layer_norm")(x)
        # Early configurations give 2, which no real caption holds: there the end of text is the
        # largest index of the vocabulary. Else the first such token counts, as it also pads.
        is_end = tokens if self.eos_token_id == 2 else tokens == self.eos_token_id
        end = jnp.argmax(is_end, axis=-1)
        return TextOutput(x, jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0])


class ClipVision(Tower, kw_only=True):
    """CLIPVisionModel, as far as its pooled output."""

    title = "CLIP vision"
    model_types = ("clip_vision_model", "clip")
    defaults = _VISION_DEFAULTS

    image_size: int
    patch_size: int

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w 3"], *, deterministic: bool = True
    ) -> Float[Array, "b d"]:
        """`image`: normalised as the model's preprocessor_config.json says."""
        self.require_shape("images", image, (self.image_size, self.image_size, 3))
        x = PatchEmbed(
            self.hidden_size,
            (self.patch_size, self.patch_size),
            use_bias=False,
            dtype=self.dtype,
            name="embeddings.patch_embedding",
        )(image)
        first = self.param(
            "embeddings.class_embedding",
            nn.initializers.normal(self.hidden_size**-0.5),
            (self.hidden_size,),
        )
        x = self.after_class_token(first, x)
        x = x + nn.Embed(
            x.shape[1],
            self.hidden_size,
            embedding_init=nn.initializers.normal(0.02),
            dtype=self.dtype,
            name="embeddings.position_embedding",
        )(jnp.arange(x.shape[1]))
        # The published name, spelt as it is.
        x = self.norm("pre_layrnorm")(x)
        x = self.encode(x, names="encoder.layers", deterministic=deterministic)
        return self.norm("post_layernorm")(x[:, 0])


class Clip(nn.Module):
    """CLIPModel: both encoders, their projections into the joint space, and the logit scale."""

    text_model: ClipText
    vision_model: ClipVision
    projection_dim: int
    logit_scale_init: float = _LOGIT_SCALE
    dtype: DTypeLike = jnp.float32

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **options: Any) -> "Clip":
        """From a CLIPModel's config.json; `options`: dropout, dtype."""
        if config.get("model_type", "clip") != "clip":
            raise ValueError(
                f"CLIP configuration: model_type is {config['model_type']!r}, supported is 'clip'"
            )
        # Old files hold the parts a second time, under `*_config_dict`, and mean those.
        text, vision = (
            config.get(f"{part}_config_dict") or config.get(f"{part}_config") or {}
            for part in ("text", "vision")
        )
        own = {
            "projection_dim": config.get("projection_dim", 512),
            "logit_scale_init": config.get("logit_scale_init_value", _LOGIT_SCALE),
        }
        problems = misfits(own, module=cls)
        problems += [
            f"{part}_config is {given!r:.60}, must be an object"
            for part, given in (("text", text), ("vision", vision))
            if not isinstance(given, Mapping)
        ]
        if problems:
            raise ValueError("CLIP configuration: " + "; ".join(problems))
        return cls(
            text_model=ClipText.from_config(text, **options),
            vision_model=ClipVision.from_config(vision, **options),
            **own,
            dtype=options.get("dtype", jnp.float32),
        )

    def setup(self) -> None:
        self.visual_projection = nn.Dense(self.projection_dim, use_bias=False, dtype=self.dtype)
        self.text_projection = nn.Dense(self.projection_dim, use_bias=False, dtype=self.dtype)
        self.logit_scale = self.param(
            "logit_scale", nn.initializers.constant(self.logit_scale_init), ()
        )

    def image_features(
        self, image: Float[Array, "b h w 3"], *, deterministic: bool = True
    ) -> Float[Array, "b d"]:
        """Projected into the joint space, not normalised."""
        return self.visual_projection(self.vision_model(image, deterministic=deterministic))

    def text_features(
        self, tokens: Int[Array, "b n"], *, deterministic: bool = True
    ) -> Float[Array, "b d"]:
        """Projected into the joint space, not normalised."""
        return self.text_projection(self.text_model(tokens, deterministic=deterministic).pooled)

    def __call__(
        self,
        image: Float[Array, "b h w 3"],
        *,
        tokens: Int[Array, "b n"],
        deterministic: bool = True,
    ) -> ClipOutput:
        """What contrastive training compares; the logits are exp(logit_scale) * image @ text.T."""
        image = self.image_features(image, deterministic=deterministic).astype(jnp.float32)
        text = self.text_features(tokens, deterministic=deterministic).astype(jnp.float32)
        return ClipOutput(
            image / jnp.linalg.norm(image, axis=-1, keepdims=True),
            text / jnp.linalg.norm(text, axis=-1, keepdims=True),
            self.logit_scale,
        )
