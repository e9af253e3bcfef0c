"""VideoMAE, which classifies clips, and ViT, which classifies frames."""

from pathlib import Path
from typing import Any

import jax

from glfa_jax import system
from glfa_jax.evaluation.models import PREDICTORS, Predictor


def _of_clips(module: Any, variables: dict, x: jax.Array) -> tuple[jax.Array, ...]:
    found = module.apply(variables, x, method="classify")
    return jax.nn.softmax(found.logits), found.features


def _of_frames(module: Any, variables: dict, x: jax.Array) -> tuple[jax.Array, ...]:
    return (jax.nn.softmax(module.apply(variables, x)),)


def _load_image_classifier(foundation: Path, frames: int) -> system.EvaluationModel:
    return system.load_evaluation_model(foundation, "vit", system.IMAGE_CLASSIFIER)


PREDICTORS.register(
    Predictor(
        system.VIDEO_CLASSIFIER,
        load=lambda foundation, frames: system.load_video_classifier(foundation, frames=frames),
        sees="clips",
        predict=_of_clips,
        gives=("clip probabilities", "clip features"),
    )
)
PREDICTORS.register(
    Predictor(
        system.IMAGE_CLASSIFIER,
        load=_load_image_classifier,
        sees="frames",
        predict=_of_frames,
        gives=("frame probabilities",),
    )
)
