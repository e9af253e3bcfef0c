"""Evaluation models that only average: what is loaded, and what goes to the device when."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glfa_jax import config, system
from glfa_jax.convert.pretrained import Pretrained
from glfa_jax.evaluation.models import EvaluationModels
from glfa_jax.models.video_mae import Classified
from glfa_jax.ops.preprocess import Preprocessor

CLIPS, FRAMES, SIDE = 3, 2, 4
VIDEOS = np.random.default_rng(0).integers(0, 256, (CLIPS, FRAMES, SIDE, SIDE, 3), np.uint8)


class Average:
    """Of every clip or image, its mean colour times a weight."""

    def apply(self, variables: dict, x: jax.Array, *, method: str | None = None) -> Any:
        found = variables["weight"] * x.reshape(len(x), -1, 3).mean(1)
        return Classified(found, found) if method == "classify" else found


@pytest.fixture
def loaded(monkeypatch) -> list[str]:
    """Names of the models that were loaded; each is an Average."""
    names = []

    def load(foundation: Path, kind: str, name: str) -> Any:
        names.append(name)
        variables = {"weight": np.ones(3, np.float32)}
        model = Pretrained(Average(), variables)
        return system.EvaluationModel(model, lambda x: x.astype(jnp.float32))

    monkeypatch.setattr(system, "load_evaluation_model", load)
    monkeypatch.setattr(
        system,
        "load_video_classifier",
        lambda foundation, frames: load(foundation, "video_mae", system.VIDEO_CLASSIFIER),
    )
    return names


def models(tmp_path, *metrics: str) -> EvaluationModels:
    evaluation = config.Evaluation(batch_size=2, metrics=metrics)
    for name in (system.VIDEO_CLASSIFIER, system.IMAGE_CLASSIFIER, system.CLIP):
        (tmp_path / name).mkdir(exist_ok=True)
    return EvaluationModels(evaluation, foundation=tmp_path, frames=FRAMES)


def test_clip_is_loaded_where_it_is_asked_for(loaded, tmp_path):
    seen = models(tmp_path, "pixel")(VIDEOS)
    assert loaded == [system.VIDEO_CLASSIFIER, system.IMAGE_CLASSIFIER]
    assert "frame embeddings" not in seen
    seen = models(tmp_path, "embeddings")(VIDEOS)
    assert loaded[-1] == system.CLIP
    np.testing.assert_allclose(seen["frame embeddings"], VIDEOS.mean((2, 3)), rtol=1e-5)


def test_captions_are_read_in_batches_by_the_model_that_is_loaded_once(loaded, tmp_path):
    own = models(tmp_path, "captions", "embeddings")
    assert loaded.count(system.CLIP) == 1
    tokens = np.random.default_rng(1).integers(0, 99, (5, 6), np.int32)
    seen = own.of_captions(tokens)
    assert [*seen] == ["caption embeddings"]
    expected = tokens.reshape(5, 2, 3).mean(1)
    np.testing.assert_allclose(seen["caption embeddings"], expected, rtol=1e-5)


def test_an_evaluation_model_is_known_by_its_parameters(loaded, tmp_path, monkeypatch):
    def identity(model: system.EvaluationModel) -> str:
        monkeypatch.setattr(system, "load_clip", lambda foundation: model)
        found = models(tmp_path, "embeddings").identities
        assert list(found) == [system.VIDEO_CLASSIFIER, system.IMAGE_CLASSIFIER, system.CLIP]
        return found[system.CLIP]

    def model(weight: float, scale: float) -> system.EvaluationModel:
        preprocess = Preprocessor(None, "bicubic", None, scale, (0.5,) * 3, (0.5,) * 3)
        return system.EvaluationModel(
            Pretrained(Average(), {"weight": np.full(3, weight)}), preprocess
        )

    assert identity(model(1.0, 1 / 255)) == identity(model(1.0, 1 / 255))
    others = [model(2.0, 1 / 255), model(1.0, 1 / 127)]
    assert len({identity(one) for one in (model(1.0, 1 / 255), *others)}) == 3


def test_parameters_are_sent_to_the_device_once(loaded, tmp_path):
    """Afterwards nothing goes there but what is put there by name: the images."""
    own = models(tmp_path, "embeddings")
    first = own(VIDEOS)
    with jax.transfer_guard("disallow"):
        again = own(VIDEOS)
    assert len(first) == 4
    assert all(np.array_equal(first[name], again[name]) for name in first)
