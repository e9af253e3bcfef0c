"""Training subjects aligned before anything is trained; new ones by any method, to any data."""

import json
import re

import numpy as np
import pytest

from glfa_jax import alignments, config, system
from glfa_jax.alignments import Layer, method_of
from glfa_jax.alignments.identity import Identity
from glfa_jax.data.store import Store
from glfa_jax.errors import InputError
from glfa_jax.evaluation import study
from glfa_jax.method import method_name
from glfa_jax.report.words import minutes_text
from glfa_jax.stages import adapt, common_space
from glfa_jax.subject_alignment import encoder_for, layer_for
from tests.alignments.test_gain import MASK, configured, write_store
from tests.stages.variants import load_trained, settings_of, store_trained

MEAN = 0.75  # of the training subjects' gains of 0.5 and 1


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    path = tmp_path_factory.mktemp("common") / "store.zarr"
    return write_store(path, subjects=("01", "02", "03"), alone=False, identity="gains")


def test_pretraining_and_stage_one_see_aligned_maps(store, tmp_path):
    settings = configured(tmp_path, store)
    seen = common_space.in_common_space(settings, store)
    plain = store.fmri("train", range(5), subjects=["02"])[:, 0]
    for subject in ("01", "02"):
        window = seen.fmri("train", range(5), subjects=[subject])[:, 0]
        assert window.dtype == np.float16
        np.testing.assert_allclose(window, MEAN * plain, rtol=0.02, atol=2e-3)
        places = {"clips": np.arange(3), "positions": np.array([0, 1, 0])}
        volumes = seen.volumes("train", subject=subject, **places)
        expected = MEAN * plain[np.arange(3), [0, 1, 0]]
        np.testing.assert_allclose(volumes, expected, rtol=0.02, atol=2e-3)
    average = MEAN * store.average(subjects=["02"])
    np.testing.assert_allclose(seen.average(subjects=["01", "02"]), average, rtol=0.02, atol=2e-3)
    assert seen.attributes.identity != store.attributes.identity
    again = common_space.in_common_space(settings, store)
    assert again.attributes.identity == seen.attributes.identity
    np.testing.assert_array_equal(again.mask, store.mask)


def test_without_such_a_method_the_data_are_as_they_are(store, tmp_path):
    settings = settings_of(tmp_path, store)
    assert common_space.in_common_space(settings, store) is store
    assert not system.stage_folder(settings, common_space.NAME).exists()


def test_layers_of_other_data_are_rejected(store, tmp_path):
    settings = configured(tmp_path, store)
    common_space.fit(settings, store)
    other = write_store(
        tmp_path / "other.zarr", subjects=("01", "02", "03"), alone=False, identity="other"
    )
    with pytest.raises(InputError, match="was fitted to other data than are in"):
        common_space.layers(settings, other)


def test_only_training_subjects_have_a_layer_to_pretrain_with(store, tmp_path):
    settings = configured(tmp_path, store)
    published = settings.protocol.model_copy(update={"pretraining": "published"})
    settings = settings.model_copy(update={"protocol": published})
    with pytest.raises(InputError, match=r"protocol\.pretraining: must be strict"):
        common_space.in_common_space(settings, store)


def unaligned(run_dir, store, **chosen) -> config.Config:
    """A finished run without alignment; chosen: of `adapt`."""
    settings = settings_of(run_dir, store, alignment={"method": "identity"}, adapt=chosen)
    store_trained(settings)
    return settings


@pytest.mark.parametrize(
    ("chosen", "folder", "said"),
    [
        ({"method": "test-gain"}, "03-1min-test-gain", "test-gain fitted to 1 min"),
        (
            {"method": "test-spread", "data": "unlabelled-test"},
            "03-0.2min-test-spread-unlabelled-test",
            "test-spread fitted to 0.2 min of unlabelled test maps",
        ),
    ],
)
def test_a_method_of_its_own_is_fitted_to_a_new_subject(store, tmp_path, chosen, folder, said):
    minutes = float(folder.split("-")[1][:-3])
    settings = unaligned(tmp_path, store)
    adapt.main(settings, subject="03", minutes=minutes, **chosen)
    about = json.loads((tmp_path / "adapt" / folder / "model" / "config.json").read_text())
    assert about["fitted_to"] == (chosen.get("data") or "paired")
    assert about["clips"] == (30 if minutes == 1 else 6)
    if about["fitted_to"] == "paired":  # nothing but a gain differs
        assert about["report"]["held_out_before"] == pytest.approx(1, abs=1e-3)
        assert about["report"]["held_out_after"] == pytest.approx(1, abs=1e-3)
        assert not about["not_measured"]
    else:
        assert "without clips that others saw" in about["not_measured"]
    page = tmp_path / "adapt" / folder / "index.html"
    assert f"({chosen['method']}) was fitted to {minutes_text(minutes)} of" in page.read_text()

    evaluation = config.Evaluation(adapted_minutes=minutes)
    own = settings.model_copy(update={"adapt": config.Adapt(**chosen), "evaluation": evaluation})
    assert said in method_name(own)
    assert system.results_folder(own).name == f"adapted-{folder[3:]}"
    encoder = encoder_for(own, load_trained(own), subject="03")
    assert method_of(encoder.module).name == chosen["method"]
    maps = store.fmri("test", range(6), subjects=["03"])[:, 0].astype(np.float32)
    wanted = MEAN * store.fmri("test", range(6), subjects=["02"])[:, 0].astype(np.float32)
    found = alignments.align(encoder, maps)
    # The test's few maps vary by another amount than those of the training they are compared with.
    rtol = 0.02 if "data" not in chosen else 0.9
    np.testing.assert_allclose(found[..., MASK], wanted[..., MASK], rtol=rtol, atol=2e-3)
    assert np.corrcoef(np.ravel(found), np.ravel(wanted))[0, 1] > 0.95
    assert layer_for(own, load_trained(own), subject="01") == Layer(Identity(), {})


def test_a_glfa_layer_can_be_fitted_where_the_run_has_none(store, tmp_path):
    few = {"method": "glfa", "steps": 40, "learning_rate": 0.05, "batch_size": 8}
    settings = unaligned(tmp_path, store, **few)
    adapt.main(settings, subject="03", minutes=1.0)
    layer = layer_for(
        settings.model_copy(update={"evaluation": config.Evaluation(adapted_minutes=1.0)}),
        load_trained(settings),
        subject="03",
    )
    assert layer is not None
    assert layer.method.name == "glfa"
    about = layer.method.describe(MASK.shape)
    assert about["patch_size"] == settings.encoder.patch_size


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({}, "nothing can be fitted but by a --method of its own"),
        ({"method": "identity"}, "adapt.method: identity has nothing to be fitted"),
        ({"method": "test-gain", "data": "unlabelled"}, "adapt.data: unlabelled, but test-gain"),
        ({"method": "none-such"}, "adapt.method: 'none-such' is no alignment"),
        ({"method": "test-gain", "minutes": 99.0}, "--minutes: 99"),
    ],
)
def test_what_cannot_be_fitted_is_said(store, tmp_path, chosen, message):
    settings = unaligned(tmp_path, store)
    minutes = chosen.pop("minutes", 1.0)
    with pytest.raises(InputError, match=re.escape(message)):
        adapt.main(settings, subject="03", minutes=minutes, **chosen)


def test_runs_of_a_study_share_what_was_aligned_alike(store, tmp_path):
    """Rows that differ in the fit to a stranger share every stage; others none of a warped run."""
    made = configured(tmp_path / "a", store)
    common_space.fit(made, store)
    fit = config.Adapt(method="test-spread", encoder=config.AdaptEncoder(steps=9))
    adapted = {"adapt": fit, "run_dir": tmp_path / "b"}
    study.share_stages(made.model_copy(update=adapted), [made])
    assert (tmp_path / "b" / common_space.NAME / "model" / "01").is_dir()
    beside = {"generator": "wan", "generator_folder": tmp_path, "run_dir": tmp_path / "d"}
    study.share_stages(made.model_copy(update=beside), [made])
    assert (tmp_path / "d" / common_space.NAME / "model" / "01").is_dir()
    other = made.alignment.model_copy(update={"method": "test-spread"})
    study.share_stages(
        made.model_copy(update={"alignment": other, "run_dir": tmp_path / "c"}), [made]
    )
    assert not (tmp_path / "c").exists()
