"""The examples of CONTRIBUTING.md run as they stand there."""

import re
import textwrap
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from glfa_jax.alignments import ALIGNMENTS, Group
from glfa_jax.errors import InputError
from glfa_jax.evaluation.models import PREDICTORS
from glfa_jax.registry import Registry

PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"


def example(name: str, registry: Registry[Any]) -> Any:
    """What the page's code registers under this name, and nobody knows afterwards."""
    blocks = re.findall(r"^ *```python\n(.*?)^ *```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (code,) = (textwrap.dedent(block) for block in blocks if f'"{name}"' in block)
    with registry.temporarily(next(iter(registry.values()))):
        exec(compile(code, PAGE.name, "exec"), vars(types.ModuleType(name)))
        return registry[name]


def test_the_model_of_a_learned_metric(tmp_path):
    tones = example("tones", PREDICTORS)
    weight = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    (tmp_path / "tones").mkdir()
    save_file({"projection.weight": weight}, tmp_path / "tones" / "model.safetensors")
    loaded = tones.load(tmp_path, 6)
    frames = np.zeros((2, 32, 48, 3), np.uint8)
    frames[1] = 255
    (found,) = tones.predict(loaded.model.module, loaded.model.variables, loaded.preprocess(frames))
    np.testing.assert_allclose(found, [-weight.sum(1), weight.sum(1)], atol=1e-5)
    assert "tones" not in PREDICTORS


def test_an_alignment():
    scaling = example("scaling", ALIGNMENTS)
    mask = np.pad(np.ones((2, 2), bool), 1)
    maps = np.random.default_rng(0).standard_normal((50, 2, 4, 4)).astype(np.float32) * mask
    method = scaling.from_options({"ridge": 0.001}, place="alignment.options")
    fitted = method.fit(maps, targets=3 * maps, group=Group(3 * maps[None], mask))
    np.testing.assert_allclose(fitted.params["gain"], np.where(mask, 3, 1), rtol=1e-4)
    assert fitted.report["distance_after"] < 1e-6 < fitted.report["distance_before"]
    said = r"^alignment\.options: ridge is -1, must be a number from 0"
    with pytest.raises(InputError, match=said):
        scaling.from_options({"ridge": -1}, place="alignment.options")
