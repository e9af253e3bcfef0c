"""What the evaluation models (VideoMAE, ViT, CLIP) predict for videos, generated or true."""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, UInt8

from glfa_jax import config, system


class Predictions(NamedTuple):
    """Class probabilities of clips and of frames, clips' features, CLIP's embeddings of frames.

    embeddings: where they are asked for, in `evaluation.metrics`.
    """

    video: Float[np.ndarray, "b k"]
    frame: Float[np.ndarray, "b f k2"]
    features: Float[np.ndarray, "b d"]
    embeddings: Float[np.ndarray, "b f d2"] | None


class EvaluationModels:
    """Classifiers of clips and frames, and CLIP if asked for; each compiled once for all.

    identities: of every model, a digest. Values of one metric by two models are two metrics.
    """

    def __init__(self, settings: config.Config):
        clips = settings.evaluation.batch_size
        frames = clips * settings.data.frames

        def classified(module: Any, variables: dict, x: jax.Array) -> tuple:
            found = module.apply(variables, x, method="classify")
            return jax.nn.softmax(found.logits), found.features

        models = {
            system.VIDEO_CLASSIFIER: system.load_video_classifier(settings),
            system.IMAGE_CLASSIFIER: system.load_evaluation_model(
                settings, "vit", system.IMAGE_CLASSIFIER
            ),
        }
        self._video = _in_batches(models[system.VIDEO_CLASSIFIER], classified, size=clips)
        self._frame = _in_batches(
            models[system.IMAGE_CLASSIFIER],
            lambda module, variables, x: (jax.nn.softmax(module.apply(variables, x)),),
            size=frames,
        )
        self._embed = None
        if "embeddings" in settings.evaluation.metrics:
            models[system.CLIP] = system.load_clip(settings)
            self._embed = _in_batches(
                models[system.CLIP],
                lambda module, variables, x: (module.apply(variables, x, method="image_features"),),
                size=frames,
            )
        self.identities = {name: _digest(model) for name, model in models.items()}

    def __call__(self, videos: UInt8[np.ndarray, "b f h w 3"]) -> Predictions:
        clips, pictures = videos.shape[:2], videos.reshape(-1, *videos.shape[2:])
        video, features = self._video(videos)
        frame = self._frame(pictures)[0].reshape(*clips, -1)
        embeddings = self._embed and self._embed(pictures)[0].reshape(*clips, -1)
        return Predictions(video, frame, features, embeddings)


def _digest(one: system.EvaluationModel) -> str:
    """Of preprocessing and parameters, in whichever file they lie."""
    state = hashlib.sha256(repr(one.preprocess).encode())
    for path, value in jax.tree_util.tree_leaves_with_path(one.model.variables):
        array = np.asarray(value)
        state.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        state.update(array.tobytes())
    return state.hexdigest()[:16]


def _in_batches(
    one: system.EvaluationModel, see: Callable[[Any, dict, jax.Array], tuple], *, size: int
) -> Callable[[np.ndarray], list[np.ndarray]]:
    """Runs `see` on pictures or videos in 8 bits; batches of one size, so that one program does."""
    module, preprocess = one.model.module, one.preprocess
    variables = jax.device_put(one.model.variables)
    run = jax.jit(lambda variables, x: see(module, variables, preprocess(x)))

    def in_batches(given: np.ndarray) -> list[np.ndarray]:
        parts = []
        for start in range(0, len(given), size):
            part = given[start : start + size]
            padded = np.resize(part, (size, *part.shape[1:]))
            found = jax.device_get(run(variables, jax.device_put(padded)))
            parts.append([x[: len(part)] for x in found])
        return [np.concatenate(x) for x in zip(*parts, strict=True)]

    return in_batches
