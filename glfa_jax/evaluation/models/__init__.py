"""What pretrained models predict for videos, generated or true.

Each model registers itself in a file of this folder, with how it is loaded and what it gives;
metrics name that in `needs`.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, UInt8

from glfa_jax import config, system
from glfa_jax.errors import InputError
from glfa_jax.metrics import PIXELS, QUANTITIES
from glfa_jax.registry import Registry

Predictions = Mapping[str, np.ndarray]
"""Of all that the models give, an array (clips, ...), or (clips, frames, ...) of frames."""


@dataclass(frozen=True)
class Predictor:
    """An evaluation model, as metrics use it.

    name: its folder in the foundation.
    load: `(foundation, frames)` to the model with its preprocessing, for clips of so many frames.
        `foundation` holds the folders of all models (it is `judges` of `glfa_jax.score`); the
        model's own is `foundation / name`.
    sees: whole clips (b, f, h, w, 3), or frames (b, h, w, 3), one by one.
    predict: `(module, variables, x)`, x preprocessed, to arrays (b, ...) in the order of `gives`.
    gives: their names, which metrics have in `needs`.
    predict_captions: `(module, variables, tokens)`, of captions (b, n), to arrays (b, ...) in the
        order of `gives_of_captions`, which metrics have in `truth_needs`.
    """

    name: str
    load: Callable[[Path, int], system.EvaluationModel]
    sees: Literal["clips", "frames"]
    predict: Callable[[Any, dict, jax.Array], tuple[jax.Array, ...]]
    gives: tuple[str, ...]
    predict_captions: Callable[[Any, dict, jax.Array], tuple[jax.Array, ...]] | None = None
    gives_of_captions: tuple[str, ...] = ()


PREDICTORS: Registry[Predictor] = Registry(__name__, what="evaluation model")


def needed(evaluation: config.Evaluation) -> tuple[Predictor, ...]:
    """The models without which the metrics that are asked for cannot be measured.

    Raises InputError for a metric that needs what nothing gives.
    """
    giving = {name: one for one in PREDICTORS.values() for name in one.gives}
    reading = {name: one for one in PREDICTORS.values() for name in one.gives_of_captions}
    found: dict[str, Predictor] = {}
    for metric in system.asked_metrics(evaluation):
        if metric.truth_needs is not None:
            if metric.truth_needs not in reading:
                raise InputError(
                    f"metric {metric.name!r}: needs {metric.truth_needs!r} of the truth, must be "
                    f"one of {', '.join(reading)}"
                )
            found[reading[metric.truth_needs].name] = reading[metric.truth_needs]
        if metric.needs in giving:
            found[giving[metric.needs].name] = giving[metric.needs]
        elif metric.needs not in (PIXELS, *QUANTITIES):
            raise InputError(
                f"metric {metric.name!r}: needs {metric.needs!r}, must be one of "
                f"{', '.join((PIXELS, *QUANTITIES, *giving))}"
            )
    return tuple(found.values())


def validate_folders(evaluation: config.Evaluation, *, foundation: Path) -> None:
    """Rejects a foundation without the folder of a model that the metrics need, naming one."""
    for one in needed(evaluation):
        if not (foundation / one.name).is_dir():
            metrics = system.asked_metrics(evaluation)
            given = {*one.gives, *one.gives_of_captions}
            first = next(x.name for x in metrics if {x.needs, x.truth_needs} & given)
            raise InputError(
                f"{foundation / one.name}: no such folder, must hold the model that metric "
                f"{first!r} needs"
            )


class EvaluationModels:
    """The models that are needed, each compiled once for all videos.

    identities: of every model, a digest. Values of one metric by two models are two metrics.
    """

    def __init__(self, evaluation: config.Evaluation, *, foundation: Path, frames: int):
        """foundation: the folder that holds their folders. frames: of a clip.

        Raises InputError for a folder that is not there, naming a metric that needs it, and for a
        model that cannot be read or does not take so many frames.
        """
        validate_folders(evaluation, foundation=foundation)
        size = evaluation.batch_size
        sizes = {"clips": size, "frames": size * frames}
        self.identities: dict[str, str] = {}
        self._predictors: list[tuple[Predictor, InBatches]] = []
        self._readers: list[tuple[Predictor, InBatches]] = []
        for one in needed(evaluation):
            model = one.load(foundation, frames)
            self.identities[one.name] = _digest(model)
            of_images, of_captions = compiled(one, model)
            self._predictors.append((one, in_batches(of_images, size=sizes[one.sees])))
            self._readers.append((one, in_batches(of_captions, size=size)))

    def __call__(self, videos: UInt8[np.ndarray, "b f h w 3"]) -> Predictions:
        found = {}
        for one, run in self._predictors:
            lead = videos.shape[: 1 if one.sees == "clips" else 2]
            predicted = run(videos.reshape(-1, *videos.shape[len(lead) :]))
            shaped = (x.reshape(*lead, *x.shape[1:]) for x in predicted)
            found |= dict(zip(one.gives, shaped, strict=True))
        return found

    def of_captions(self, tokens: Int[np.ndarray, "b n"]) -> Predictions:
        """What the models make of captions, from CLIP's tokens."""
        return {
            name: values
            for one, run in self._readers
            if one.gives_of_captions
            for name, values in zip(one.gives_of_captions, run(tokens), strict=True)
        }


def _digest(one: system.EvaluationModel) -> str:
    """Of preprocessing and parameters, in whichever file they lie."""
    state = hashlib.sha256(repr(one.preprocess).encode())
    for path, value in jax.tree_util.tree_leaves_with_path(one.model.variables):
        array = np.asarray(value)
        state.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        state.update(array.tobytes())
    return state.hexdigest()[:16]


InBatches = Callable[[np.ndarray], list[np.ndarray]]


def compiled(
    one: Predictor, loaded: system.EvaluationModel
) -> tuple[Callable[[jax.Array], Any], Callable[[jax.Array], Any]]:
    """What a model predicts of frames or videos in 8 bits, and of tokens."""
    module, preprocess, read = loaded.model.module, loaded.preprocess, one.predict_captions
    variables = jax.tree.map(jnp.asarray, loaded.model.variables)  # read one after the other
    see = jax.jit(lambda variables, x: one.predict(module, variables, preprocess(x)))
    understand = jax.jit(lambda variables, x: read(module, variables, x) if read else ())
    return partial(see, variables), partial(understand, variables)


def in_batches(run: Callable[[jax.Array], Any], *, size: int) -> InBatches:
    """Batches of one size, so that one program does."""

    def in_batches(given: np.ndarray) -> list[np.ndarray]:
        parts = []
        for start in range(0, len(given), size):
            part = given[start : start + size]
            padded = np.resize(part, (size, *part.shape[1:]))
            found = jax.device_get(run(jax.device_put(padded)))
            parts.append([x[: len(part)] for x in found])
        return [np.concatenate(x) for x in zip(*parts, strict=True)]

    return in_batches
