"""Decoding another data set with a finished run, where the subjects of both are called the same."""

import json
import shutil
from typing import NamedTuple

import numpy as np
import pytest

from glfa_jax import config, system
from glfa_jax.convert.pretrained import in_memory
from glfa_jax.data.store import Store
from glfa_jax.errors import InputError
from glfa_jax.evaluation import decoding, sample, score, sweep
from glfa_jax.evaluation.decoding import SCORING, HeldOut, open_test, validate_same_settings
from glfa_jax.method import training_words
from glfa_jax.metrics import METRICS, image
from glfa_jax.results import Scores
from glfa_jax.stages import adapt
from glfa_jax.trained.sampler import VideoSampler
from tests.evaluation.test_registered import REDNESS, redness_difference
from tests.evaluation.tiny_run import finished, write_store

ASKED = "evaluation.metrics=[pixel,captions]"


@pytest.fixture(scope="module", autouse=True)
def redness():
    """A metric of which nothing else knows."""
    with METRICS.temporarily(REDNESS):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cross")


@pytest.fixture(scope="module")
def trained(folder) -> config.Config:
    return finished(folder, ASKED)


class Sampled(NamedTuple):
    """averaged: of which stores."""

    settings: config.Config
    other: Store
    sampler: VideoSampler
    averaged: list[str]


@pytest.fixture(scope="module")
def sampled(folder, trained):
    other = write_store(folder / "other.zarr", identity="other", seed=1)
    settings = config.overridden(
        trained, [f"protocol.test_store={other.path}", 'protocol.test_subjects=["01"]']
    )
    made, averaged = [], []
    make, average = HeldOut.sampler, decoding.average_window

    def average_window(*given, store):
        averaged.append(store.attributes.identity)
        return average(*given, store=store)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HeldOut, "sampler", lambda test: made.append(make(test)) or made[-1])
        patch.setattr(decoding, "average_window", average_window)
        sample.main(settings)
    return Sampled(settings, other, made[0], averaged)


def test_the_maps_of_the_other_subject_are_decoded(sampled):
    settings, other, sampler, _ = sampled
    videos, clips = sample.read_samples(open_test(settings), "01")
    assert clips == [0, 1, 2, 3]
    options = {"scale": 9.0, "steps": 2, "seed": 0}

    def decoded(fmri):
        return sampler(fmri, subject="01", clip=np.arange(3), **options)

    test = open_test(settings)
    assert test.store.path == other.path
    np.testing.assert_array_equal(videos[:3], decoded(test.maps("01", [0, 1, 2])))
    trained = test.trained.fmri("test", [0, 1, 2], subjects=["01"])[:, 0]
    assert (videos[:3] != decoded(trained)).any()


def test_what_is_pushed_away_from_is_the_average_of_training(sampled):
    assert sampled.averaged == ["trained"]


def test_scores_are_against_the_other_clips_and_say_so(sampled):
    settings, other, *_ = sampled
    score.main(settings)
    place = settings.run_dir / "on-other"
    scores = Scores.read(place)
    protocol = scores.protocol
    assert (protocol.name, protocol.train_data, protocol.test_data) == (
        *("cross-dataset", "trained", "other"),
    )
    videos, clips = sample.read_samples(open_test(settings), "01")
    expected = image.psnr(videos, truth=other.video("test", clips))
    np.testing.assert_allclose(scores.values("PSNR"), expected)
    rows = json.loads((place / "metrics.json").read_text())
    words = "cross-dataset, strict pretraining, simulated subjects (smooth)"
    assert {row["protocol"] for row in rows} == {words}
    assert {row["training"] for row in rows} == {training_words(settings)}
    assert scores.training["cotrain.preset"] == '"code"'
    report = (place / "report/index.html").read_text()
    assert "subject 01 of other.zarr (cross-dataset" in report
    expected = redness_difference(videos, truth=other.video("test", clips))
    np.testing.assert_allclose(scores.values("redness"), expected)
    assert [row["better"] for row in rows if row["metric"] == "redness"] == ["lower"]
    assert "redness (mean)" in report
    assert not (place / "alignment.npz").exists()
    found = scores.values("CLIP caption similarity")
    np.testing.assert_allclose(found, caption_similarities(settings, other, videos), atol=1e-4)


def caption_similarities(settings: config.Config, other: Store, videos: np.ndarray) -> np.ndarray:
    """Mean cosine of a clip's frames, one by one, and its caption."""
    clip = system.load_clip(settings.foundation)
    module, variables = clip.model.module, in_memory(clip.model.variables)
    captions = other.attributes.captions["test"]
    tokens = system.tokenizer(settings)(captions)
    texts = module.apply(variables, tokens, method="text_features")
    frames = clip.preprocess(videos.reshape(-1, *videos.shape[2:]))
    images = module.apply(variables, frames, method="image_features")
    images = images.reshape(*videos.shape[:2], -1)
    images, texts = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (images, texts))
    return np.einsum("cfd,cd->c", images, texts) / videos.shape[1]


def test_the_run_stays_as_it_was_and_its_own_results_lie_elsewhere(sampled, trained):
    assert {path.name for path in trained.run_dir.iterdir()} == {
        *("config.yaml", "cotrain", "on-other")
    }
    assert config.load(trained.run_dir / "config.yaml") == trained
    assert config.load(trained.run_dir / "on-other" / "config.yaml") == sampled.settings
    assert sample.folder(trained) == trained.run_dir / "samples"


def test_a_subject_scanned_later_is_decoded_with_the_layer_fitted_to_him(trained, tmp_path):
    """By the commands that the README names; of clips there is but a share of a minute."""
    new = write_store(tmp_path / "new.zarr", identity="new", seed=3, subjects=["04"])
    run = tmp_path / "run"
    shutil.copytree(trained.run_dir / "cotrain", run / "cotrain")
    shutil.copy(trained.run_dir / "config.yaml", run)
    sets = [f"protocol.test_store={new.path}", "protocol.test_subjects=['04']", "adapt.steps=2"]
    settings = config.overridden(trained, [f"run_dir={run}", *sets])
    adapt.main(settings, subject="04", minutes=0.05)
    fitted = config.overridden(settings, ["evaluation.adapted_minutes=0.05"])
    sample.main(fitted)
    score.main(fitted)
    scores = Scores.read(run / "on-new" / "adapted-0.05min")
    protocol = scores.protocol
    assert (protocol.name, protocol.pretraining) == ("cross-dataset", "strict")
    assert (protocol.train_data, protocol.test_data) == ("trained", "new")
    assert scores.method.endswith(", fitted to 0.05 min")
    assert scores.training["adapt.steps"] == "2"
    assert config.load(run / "config.yaml") == trained
    assert {path.name for path in run.iterdir()} == {"config.yaml", "cotrain", "adapt", "on-new"}


@pytest.mark.parametrize(
    ("change", "said"),
    [("subjects", r"test_subjects: \['02'\] \| \['01'\];"), ("store", r"data: third \| other;")],
)
def test_results_of_other_tests_are_not_mixed(sampled, tmp_path, change, said):
    """Another subject, who has cells of their own in a sweep, or another store of the same name."""
    settings = sampled.settings
    for place, but in (
        (sample.folder(settings), SCORING),
        (sweep.folder(settings), sweep.IN_PATH),
    ):
        validate_same_settings(open_test(settings), place, but=but)
    if change == "subjects":
        ours = config.overridden(settings, ['protocol.test_subjects=["02"]'])
    else:
        third = write_store(tmp_path / "other.zarr", identity="third", seed=2)
        ours = config.overridden(settings, [f"protocol.test_store={third.path}"])
    place = settings.run_dir / "on-other"
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    for program in (sample, score) if change == "subjects" else (sample, score, sweep):
        with pytest.raises(InputError, match=rf"made with other settings \(now \| then\): {said}"):
            program.main(ours)
    assert before == {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
