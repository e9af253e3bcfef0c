"""LEA: the model is ridge regression on the train windows of the train subjects, and only that."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
import yaml

from glfa_jax import config, system
from glfa_jax.convert import pretrained
from glfa_jax.convert.pretrained import in_memory
from glfa_jax.data.video import unit_range
from glfa_jax.errors import InputError, TrainingError
from glfa_jax.files import read_object
from glfa_jax.ops.ridge import Ridge, rescaled
from glfa_jax.ops.ridge_penalty import Halves
from glfa_jax.stages import cotrain, lea
from glfa_jax.stages import running as stages
from glfa_jax.trained.data import TrainedOn
from glfa_jax.trained.model import validate_finished
from glfa_jax.training.loop import check_unchanged

ROOT = Path(__file__).parents[2]
CLIPS, SUBJECTS, WINDOW, SIDE = 7, ("a", "b"), 2, 16
CAPTIONS = [f"a {word} ball" for word in ("red", "blue", "green", "small", "big", "white")] + [""]
PRESENT = np.array([[1, 1], [1, 0], [0, 1], [0, 0], [1, 1], [1, 1], [0, 0]], bool)


class Store:
    """Of random content; the last clip, which has no caption, was seen by nobody."""

    path = Path("store")

    def __init__(self, present=PRESENT):
        rng = np.random.default_rng(0)
        self._present = present
        self._fmri = rng.standard_normal((CLIPS, 2, WINDOW, SIDE, SIDE)).astype(np.float16)
        self._video = rng.integers(256, size=(CLIPS, 3, 8, 8, 3), dtype=np.uint8)
        names = [f"{i}.mp4" for i in range(CLIPS)]
        self.mask = np.ones((SIDE, SIDE), bool)
        self.attributes = SimpleNamespace(
            **{"captions": {"train": CAPTIONS}, "clips": {"train": names}, "identity": "random"},
            **{"repetition_time": 1.0, "lag_seconds": 4.0, "clip_seconds": 2.0, "provenance": {}},
        )

    def present(self, split, *, subjects):
        assert (split, subjects) == ("train", SUBJECTS)
        return self._present

    def fmri(self, split, clips, *, subjects):
        assert (split, subjects) == ("train", SUBJECTS)
        return self._fmri[clips]

    def video(self, split, clips):
        assert split == "train"
        return self._video[clips]

    def average(self, *, subjects):
        assert subjects == SUBJECTS
        return self._fmri[self._present].mean(0, np.float32)


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> config.Config:
    """With a random pretrained autoencoder in the run folder."""
    run_dir = tmp_path_factory.mktemp("run")
    given = config.Config.model_validate(
        {
            "name": "tiny",
            "method": "lea",
            "run_dir": run_dir,
            "foundation": ROOT / "foundation" / "simulated",
            "data": {
                **{"root": "study", "store": "store", "subjects": [*SUBJECTS, "c"]},
                **{"map_size": SIDE, "window": WINDOW},
            },
            "protocol": {"train_subjects": SUBJECTS, "test_subjects": ["c"]},
            "encoder": {
                **{"patch_size": 8, "width": 64, "depth": 1, "decoder_depth": 1},
                **{"num_heads": 2, "latent": 16},
            },
            "lea": {"alpha": 3.0, "batch_size": 6},
        }
    )
    module, rng = system.autoencoder(given), np.random.default_rng(1)
    params = jax.tree.map(
        lambda x: 0.3 * rng.standard_normal(x.shape).astype(np.float32),
        pretrained.parameter_shapes("fmri_autoencoder", module),
    )
    folder = system.model_folder(given, "pretrain")
    system.save_own("fmri_autoencoder", folder, module, params)
    return given


def samples(settings: config.Config, store: Store) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of every window that is there, caption tokens and image embeddings beside them."""
    encoder = pretrained.load("fmri_autoencoder", system.model_folder(settings, "pretrain"))
    text = in_memory(system.generator(settings).load_text_encoder(compute_dtype=np.float32))
    clip = system.load_clip(settings.foundation)
    clips, subjects = np.nonzero(PRESENT)
    fmri = store._fmri[clips, subjects].astype(np.float32)
    tokens = encoder.module.apply(encoder.variables, fmri, method="encode")
    captions = system.tokenizer(settings)([CAPTIONS[clip] for clip in clips])
    hidden = jax.jit(text.module.apply)(text.variables, captions).hidden
    frames = clip.preprocess(unit_range(store._video[clips]).reshape(-1, 8, 8, 3))
    apply = jax.jit(clip.model.module.apply)
    images = apply(in_memory(clip.model.variables), frames, tokens=captions).image
    images = images.reshape(len(clips), 3, -1).mean(1)
    return np.concatenate(tokens[:, :, 0].swapaxes(0, 1), -1), np.array(hidden), np.array(images)


def test_the_model_is_the_rescaled_regression_on_what_is_present(settings):
    """In batches of three clips, of which the last is not full; absent windows do not count."""
    store: Any = Store()
    module, params, _ = lea.fit_model(settings, store)
    clips, subjects = np.nonzero(PRESENT)
    windows = store._fmri[clips, subjects].astype(np.float32)
    ours = jax.jit(module.apply)({"params": params}, windows)
    features, tokens, images = (x.astype(np.float64) for x in samples(settings, store))
    x, y = features, np.concatenate([tokens.reshape(len(tokens), -1), images], axis=1)
    predictions = x @ np.linalg.solve(x.T @ x + 3 * np.eye(x.shape[1]), x.T @ y)
    varies = y.std(0) > 1e-6 * np.abs(y).max()
    scale = np.where(varies, y.std(0) / predictions.std(0), 0)
    expected = (predictions - predictions.mean(0)) * scale + y.mean(0)
    size = tokens[0].size
    condition = expected[:, :size].reshape(tokens.shape)
    assert not varies[: tokens.shape[2]].any()  # the token that begins every caption
    assert varies[tokens.shape[2] : size].any()
    assert np.abs(ours.condition - condition).max() <= 1e-4 * np.abs(condition).max()
    image = expected[:, size:]
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    np.testing.assert_allclose(ours.embedding, image, atol=1e-4)


def test_how_many_are_encoded_at_once_changes_nothing(settings):
    store: Any = Store()
    _, params, _ = lea.fit_model(settings, store)
    larger = settings.model_copy(update={"lea": config.Lea(alpha=3.0, batch_size=100)})
    _, again, _ = lea.fit_model(larger, store)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(again), strict=True):
        assert np.abs(a - b).max() <= 1e-4 * np.abs(b).max()


def test_the_penalty_is_chosen_between_the_training_subjects(settings):
    """Of `Store` only train data can be read, and only of train subjects."""
    store: Any = Store()
    own = settings.model_copy(update={"lea": config.Lea(alpha="auto", batch_size=6)})
    _, params, penalty = lea.fit_model(own, store)
    _, subjects = np.nonzero(PRESENT)
    features, tokens, images = samples(settings, store)
    halves = Halves(features=features.shape[1], targets=tokens[0].size + images.shape[1])
    y = np.concatenate([tokens.reshape(len(tokens), -1), images], axis=1)
    halves.add(features, targets=y, second=subjects == 1)
    alpha = halves.choose().share * np.square(features.astype(np.float64)).mean() * len(features)
    np.testing.assert_allclose(penalty.alpha, alpha, rtol=1e-4)
    assert len(penalty.correlations) > 10
    given = settings.model_copy(update={"lea": config.Lea(alpha=penalty.alpha, batch_size=6)})
    _, again, as_given = lea.fit_model(given, store)
    assert as_given == lea.Penalty(penalty.alpha)
    jax.tree.map(np.testing.assert_array_equal, again, params)


def test_of_one_subject_neighbours_and_showings_of_a_clip_stay_together():
    names = ["a", "b", "a", "c", "d", "b"]
    store: Any = SimpleNamespace(attributes=SimpleNamespace(clips={"train": names}))
    clips, subject = np.array([0, 1, 2, 3, 4, 5, 1]), np.array([0, 0, 0, 0, 0, 0, 1])
    alone = lea.second_half(store, clips, subject, 1).tolist()
    assert alone == [False, False, False, True, True, False, False]
    assert lea.second_half(store, clips, subject, 2).tolist() == [False] * 6 + [True]


def test_clips_without_caption_are_rejected(settings):
    store: Any = Store(np.ones_like(PRESENT))
    with pytest.raises(InputError) as error:
        lea.fit_model(settings, store)
    assert str(error.value) == (
        "store: 1 of 7 train clips have no caption, the first is 6.mp4; method lea learns to "
        "predict captions: give every clip one"
    )


def test_clips_without_caption_are_rejected_before_pretraining(settings, tmp_path, monkeypatch):
    monkeypatch.setattr("glfa_jax.stages.lea.pretrain.run", lambda *_: pytest.fail("pretrained"))
    wordless: Any = Store(np.ones_like(PRESENT))
    with pytest.raises(InputError, match="method lea learns to predict captions"):
        lea.run(settings.model_copy(update={"run_dir": tmp_path}), wordless)


def test_weights_are_rescaled_once(monkeypatch):
    """They take gigabytes at full size."""
    rng = np.random.default_rng(0)
    ridge = Ridge(features=3, targets=5)
    ridge.add(rng.standard_normal((20, 3)), targets=rng.standard_normal((20, 5)))
    fit, made = ridge.solve(alpha=1.0), []
    monkeypatch.setattr(lea, "rescaled", lambda fit: made.append(rescaled(fit)) or made[-1])
    found = lea.parameters(fit, split=2)
    (weights,) = made
    for name, columns in (("to_tokens", slice(2)), ("to_image", slice(2, 5))):
        np.testing.assert_array_equal(found[name]["linear"]["kernel"], weights[:, columns])
        np.testing.assert_array_equal(found[name]["linear"]["bias"], fit.targets_mean[columns])
        np.testing.assert_array_equal(found[name]["centre"], fit.features_mean)


def test_a_kept_model_is_complete_or_not_there(settings, monkeypatch, capsys):
    wordless: Any = Store(np.ones_like(PRESENT))
    store: Any = Store()
    monkeypatch.setattr("glfa_jax.stages.lea.pretrain.run", lambda *_: None)
    with pytest.raises(InputError, match="the regression is not finished; run python -m train"):
        validate_finished(settings)
    with pytest.raises(InputError):
        lea.run(settings, wordless)
    with pytest.raises(InputError):
        validate_finished(settings)
    lea.run(settings, store)
    validate_finished(settings)
    lea.run(settings, wordless)
    assert "lea: finished already" in capsys.readouterr().out
    folder = system.model_folder(settings, "lea")
    assert {path.name for path in folder.iterdir()} == {
        "SHA256SUMS",
        "config.json",
        "model.safetensors",
        "trained_on",
    }
    assert read_object(folder.parent / "penalty.json") == {"alpha": 3.0, "correlations": {}}
    kept = TrainedOn.load(folder / "trained_on")
    np.testing.assert_array_equal(kept.average, store.average(subjects=SUBJECTS))
    module, params, _ = lea.fit_model(settings, store)
    loaded = pretrained.load("lea", folder)
    assert loaded.module == module
    jax.tree.map(np.testing.assert_array_equal, loaded.variables["params"], params)


def test_a_longer_pretraining_needs_another_fit(settings, tmp_path):
    longer = settings.model_copy(update={"run_dir": tmp_path})
    for folder in ("pretrain", "lea"):
        (tmp_path / folder).mkdir()
    (tmp_path / "pretrain" / "done.json").write_text('{"step": 3, "metrics": {}}')
    with pytest.raises(InputError, match=r"pretrain.steps: 2000, but lea in .* from 3 steps"):
        stages.validate_earlier_stages(longer)


@pytest.mark.parametrize("stage", ["pretrain", "contrast"])
def test_no_stage_can_be_left_out(settings, stage):
    with pytest.raises(config.ConfigError, match=rf"without: \['{stage}'\], must be left out with"):
        config.overridden(settings, [f"without=[{stage}]"])


def test_nothing_is_compiled_ahead_of_a_regression(settings):
    with pytest.raises(InputError, match="method: lea cannot be compiled ahead of its regression"):
        cotrain.compile_only(settings, "v5e:2x2", None)


def test_a_run_of_before_there_was_a_choice_is_one_of_glfa(settings, tmp_path):
    ours = settings.model_copy(update={"method": "glfa", "lea": config.Lea()})
    tree = yaml.safe_load(config.dump(ours))
    del tree["method"], tree["lea"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    check_unchanged(tmp_path, ours)
    with pytest.raises(TrainingError, match=r"method: lea \| glfa"):
        check_unchanged(tmp_path, settings)
