"""CLIP's embeddings of frames and captions, by its projections, not normalised."""

from typing import Any

import jax

from glfa_jax import system
from glfa_jax.evaluation.models import PREDICTORS, Predictor


def _embed(module: Any, variables: dict, x: jax.Array) -> tuple[jax.Array, ...]:
    return (module.apply(variables, x, method="image_features"),)


def _read(module: Any, variables: dict, tokens: jax.Array) -> tuple[jax.Array, ...]:
    return (module.apply(variables, tokens, method="text_features"),)


PREDICTORS.register(
    Predictor(
        system.CLIP,
        load=lambda foundation, frames: system.load_clip(foundation),
        sees="frames",
        predict=_embed,
        gives=("frame embeddings",),
        predict_captions=_read,
        gives_of_captions=("caption embeddings",),
    )
)
