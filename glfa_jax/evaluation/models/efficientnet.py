"""EfficientNet's pooled features of frames."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from glfa_jax import system
from glfa_jax.convert import efficientnet
from glfa_jax.convert.directory import DirectoryError, lone_variant, read_config, read_tensors
from glfa_jax.convert.mapping import ConversionError, import_params
from glfa_jax.convert.pretrained import Pretrained, declared_class
from glfa_jax.evaluation.models import PREDICTORS, Predictor
from glfa_jax.models.efficientnet import EfficientNet

NAME = "efficientnet"  # its folder in the foundation, such as google/efficientnet-b1
_CLASSES = ("EfficientNetModel", "EfficientNetForImageClassification")
_EXAMPLE = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)  # any size does


def load(foundation: Path, frames: int) -> system.EvaluationModel:
    """Raises InputError for a folder that holds no EfficientNet, naming it."""
    folder = foundation / NAME
    config = read_config(folder)
    try:
        if (named := declared_class(config)) not in (None, *_CLASSES):
            raise ValueError(f"it is of the class {named}, must be of {' or '.join(_CLASSES)}")
        module = EfficientNet.from_config(config)
        shapes = jax.eval_shape(lambda x: module.init(jax.random.key(0), x), _EXAMPLE)
    except (ValueError, TypeError) as error:
        raise DirectoryError(
            f"{folder}: its configuration describes no {NAME} model ({error})"
        ) from None
    tensors = read_tensors(folder, variant=lone_variant(folder))
    try:
        params = import_params(
            tensors, shapes["params"], efficientnet.table(tensors), dtype=np.float32
        )
    except ConversionError as error:
        raise ConversionError(f"{folder}: {error}") from None
    model = Pretrained(module, {"params": params})
    return system.EvaluationModel(model, system.preprocessor(folder, NAME))


def _features(module: Any, variables: dict, x: jax.Array) -> tuple[jax.Array, ...]:
    return (module.apply(variables, x),)


PREDICTORS.register(
    Predictor(NAME, load=load, sees="frames", predict=_features, gives=("frame features",))
)
