"""Metrics of one's own: once registered they are measured, swept and compared with no other change.

A report of one: tests/evaluation/test_cross_dataset.py.
"""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glfa_jax import config, system
from glfa_jax.convert.pretrained import Pretrained
from glfa_jax.errors import InputError
from glfa_jax.evaluation import compare, sweep
from glfa_jax.evaluation.models import (
    PREDICTORS,
    EvaluationModels,
    Predictor,
    needed,
    validate_folders,
)
from glfa_jax.evaluation.scoring import evaluation_models
from glfa_jax.metrics import METRICS, Metric
from glfa_jax.models.video_mae import Classified
from glfa_jax.results import Scores
from tests.evaluation import test_sweep
from tests.evaluation.test_scoring import CLASSES, CLIPS, videos

decoded, place = test_sweep.decoded, test_sweep.place  # fixtures


def redness_difference(prediction: np.ndarray, *, truth: np.ndarray) -> np.ndarray:
    ours, theirs = (video[..., 0].mean((1, 2, 3)) for video in (prediction, truth))
    return abs(ours - theirs)


REDNESS = Metric(
    "redness", group="pixel", variant="mean", better="lower", measure=redness_difference
)


class Linear:
    """In place of every pretrained model: weights of the mean colour."""

    def apply(self, variables: dict, x: jax.Array, *, method: str | None = None) -> Any:
        found = x.reshape(len(x), -1, 3).mean(1) @ variables["weight"]
        return Classified(found, found) if method == "classify" else found


def loaded(width: int, seed: int) -> system.EvaluationModel:
    weight = np.random.default_rng(seed).standard_normal((3, width)).astype(np.float32)
    model = Pretrained(Linear(), {"weight": weight})
    return system.EvaluationModel(model, lambda x: x.astype(jnp.float32) / 255)


def warmth_of(predicted: np.ndarray, *, truth: np.ndarray) -> np.ndarray:
    return -np.linalg.norm(predicted - truth, axis=-1).mean(1)


WARMTH = Metric(
    "warmth",
    group="warmth",
    variant="made up",
    better="higher",
    needs="warmth of frames",
    measure=warmth_of,
)
WARMTH_MODEL = Predictor(
    "warmth-model",
    load=lambda foundation, frames: loaded(4, 7),
    sees="frames",
    predict=lambda module, variables, x: (module.apply(variables, x),),
    gives=("warmth of frames",),
)


def test_a_metric_that_needs_what_nothing_gives_is_rejected():
    with METRICS.temporarily(WARMTH):
        said = r"metric 'warmth': needs 'warmth of frames', must be one of pixels, .*embeddings"
        with pytest.raises(InputError, match=said):
            needed(config.Evaluation(metrics=("warmth",)))


def test_a_model_without_its_folder_is_missed_before_anything_is_loaded(tmp_path):
    for name in (system.VIDEO_CLASSIFIER, system.IMAGE_CLASSIFIER):
        (tmp_path / name).mkdir()
    asked = config.Evaluation(metrics=("warmth",))
    said = f"^{tmp_path}/warmth-model: no such folder, must hold the model .* metric 'warmth' needs"
    with METRICS.temporarily(WARMTH), PREDICTORS.temporarily(WARMTH_MODEL):
        with pytest.raises(InputError, match=said):
            EvaluationModels(asked, foundation=tmp_path, frames=3)
        (tmp_path / "warmth-model").mkdir()
        validate_folders(asked, foundation=tmp_path)


def compared(place, tmp_path, monkeypatch) -> dict[str, Any]:
    """Two cells of a sweep as two methods, by metric."""
    monkeypatch.chdir(tmp_path)
    runs = [
        f"after {step}={place / '02' / f'checkpoint{step}_steps25_scale9_seed0'}" for step in (1, 2)
    ]
    assert compare.command(runs) == 0
    content = json.loads((tmp_path / "comparison" / "comparison.json").read_text())
    return {metric["name"]: metric for metric in content["metrics"]}


def test_a_metric_of_pixels(decoded, place, tmp_path, monkeypatch):
    with METRICS.temporarily(REDNESS):
        test_sweep.swept(decoded, "evaluation.metrics=[pixel]")
    rows = json.loads((place / "table.json").read_text())
    assert sum(row["metric"] == "redness" for row in rows) == 6
    scores = Scores.read(place / "02" / "checkpoint1_steps25_scale9_seed0")
    assert [*scores.metrics][-1] == "redness"
    expected = redness_difference(videos(2), truth=videos(0))
    np.testing.assert_allclose(scores.values("redness"), expected)
    found = compared(place, tmp_path, monkeypatch)["redness"]
    assert (found["variant"], found["better"]) == ("mean", "lower")
    assert found["entries"][0]["over_clips"]["mean"] == pytest.approx(expected.mean())
    assert "redness" not in METRICS


def test_a_metric_of_what_a_model_predicts(decoded, place, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "evaluation_models", evaluation_models)
    monkeypatch.setattr(system, "load_evaluation_model", lambda *_: loaded(CLASSES, 0))
    monkeypatch.setattr(system, "load_video_classifier", lambda *_, **__: loaded(CLASSES, 1))
    monkeypatch.chdir(tmp_path)
    for name in (system.VIDEO_CLASSIFIER, system.IMAGE_CLASSIFIER, "warmth-model"):
        (decoded.settings.foundation / name).mkdir(parents=True)
    with METRICS.temporarily(WARMTH), PREDICTORS.temporarily(WARMTH_MODEL):
        test_sweep.swept(decoded, "evaluation.metrics=[warmth]", "evaluation.batch_size=4")
    scores = Scores.read(place / "02" / "checkpoint2_steps25_scale9_seed0")
    assert [*scores.judges][-1] == "warmth-model"
    assert [*scores.metrics][-1] == "warmth"
    weight = loaded(4, 7).model.variables["weight"]
    ours, theirs = (video.mean((2, 3)) @ weight / 255 for video in (videos(3), videos(0)))
    expected = -np.linalg.norm(ours - theirs, axis=-1).mean(1)
    assert scores.values("warmth").shape == (CLIPS,)
    np.testing.assert_allclose(scores.values("warmth"), expected, atol=1e-5)
    assert "warmth" in compared(place, tmp_path, monkeypatch)
