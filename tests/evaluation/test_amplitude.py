"""The amplitude of test maps: what averaging took away is given back, and nothing else is read."""

import json

import numpy as np
import pytest

from glfa_jax import config
from glfa_jax.data.store import Store
from glfa_jax.errors import InputError
from glfa_jax.evaluation.amplitude import rescaling, spread
from glfa_jax.evaluation.decoding import SCORING, open_test, validate_same_settings
from tests import stores
from tests.evaluation.tiny_run import finished, write_store

SHAPE = (3, 8, 8)
CLIPS = {"train": 70, "test": 66}  # more than are read at a time


def make(path, *, seed: int = 0, test_of_others: float = 1.0) -> Store:
    """Training maps of deviation 1, 2 and 3; test maps of half of that, and not about zero."""
    rng = np.random.default_rng(seed)
    mask = np.ones(SHAPE[1:], bool)
    mask[:, :2] = False
    maps = {
        subject: {
            split: (mask * (rng.standard_normal((CLIPS[split], *SHAPE)) * size + 0.5)).astype("f2")
            for split, size in (("train", number), ("test", number / 2))
        }
        for number, subject in enumerate(("01", "02", "03"), start=1)
    }
    maps["01"]["test"] *= test_of_others
    videos = {split: np.zeros((count, 2, 4, 4, 3), np.uint8) for split, count in CLIPS.items()}
    return stores.write_store(path, identity="a", mask=mask, videos=videos, maps=maps)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return make(tmp_path_factory.mktemp("store") / "store.zarr")


def maps_of(store: Store, kind: str, *, train_subjects=("01", "02")) -> np.ndarray:
    """All of subject 03."""
    own = rescaling(kind, decoded=store, subject="03", trained=store, train_subjects=train_subjects)
    return own(store.fmri("test", range(CLIPS["test"]), subjects=["03"])[:, 0])


def test_averages_are_left_as_they_are(store):
    maps = store.fmri("test", range(CLIPS["test"]), subjects=["03"])[:, 0]
    found = maps_of(store, "averaged")
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, maps)


def test_z_scored_maps_have_every_pixel_about_zero_with_deviation_one(store):
    found = maps_of(store, "z-scored").astype(np.float64)
    inside = found[..., store.mask]
    np.testing.assert_allclose(inside.mean((0, 1)), 0, atol=1e-6)
    np.testing.assert_allclose(inside.std((0, 1)), 1, rtol=1e-6)
    assert not found[..., ~store.mask].any()


def test_rescaled_maps_have_the_deviation_of_training_maps_and_are_multiples(store):
    found, maps = maps_of(store, "rescaled"), maps_of(store, "averaged").astype(np.float32)
    inside = maps != 0
    factors = found[inside] / maps[inside]
    np.testing.assert_allclose(factors, factors[0], rtol=1e-6)
    assert not found[..., ~store.mask].any()
    wanted = np.mean([spread(store, "train", subject) for subject in ("01", "02")])
    deviation = found.astype(np.float64).std((0, 1))[store.mask].mean()
    np.testing.assert_allclose(deviation, wanted, rtol=1e-6)
    np.testing.assert_allclose(wanted, 1.5, rtol=0.02)  # of subjects 01 and 02
    alone = maps_of(store, "rescaled", train_subjects=("02",))
    np.testing.assert_allclose(alone[inside][0] / found[inside][0], 2 / 1.5, rtol=0.03)


def test_a_subject_whose_maps_do_not_vary_stays_as_it_is(tmp_path):
    maps = {"01": {split: np.zeros((2, *SHAPE), "f2") for split in ("train", "test")}}
    videos = {split: np.zeros((2, 2, 4, 4, 3), np.uint8) for split in ("train", "test")}
    mask = np.ones(SHAPE[1:], bool)
    still = stores.write_store(tmp_path / "s", identity="a", mask=mask, videos=videos, maps=maps)
    for kind in ("z-scored", "rescaled"):
        own = rescaling(kind, decoded=still, subject="01", trained=still, train_subjects=["01"])
        assert not own(still.fmri("test", [0, 1], subjects=["01"])[:, 0]).any()


def test_other_subjects_test_maps_are_not_looked_at(store, tmp_path):
    other = make(tmp_path / "other.zarr", test_of_others=7.0)
    for kind in ("z-scored", "rescaled"):
        np.testing.assert_array_equal(maps_of(other, kind), maps_of(store, kind))


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> config.Config:
    return finished(tmp_path_factory.mktemp("run"))


def test_a_held_out_subject_is_decoded_from_maps_of_that_amplitude(settings):
    """Also of another store: test maps are its, training maps those that were trained on."""
    other = settings.data.root / "other.zarr"
    write_store(other, identity="other", seed=1)
    changes = ["evaluation.test_maps=rescaled", f"protocol.test_store={other}"]
    test = open_test(config.overridden(settings, changes))
    maps = test.store.fmri("test", [0, 1], subjects=["03"])[:, 0]
    wanted = np.mean([spread(test.trained, "train", subject) for subject in ("01", "02")])
    expected = maps.astype(np.float32) * (wanted / spread(test.store, "test", "03"))
    assert test.store.path != test.trained.path
    np.testing.assert_allclose(test.maps("03", [0, 1]), expected, rtol=1e-6)
    as_they_are = open_test(config.overridden(settings, ["evaluation.test_maps=averaged"]))
    np.testing.assert_array_equal(
        as_they_are.maps("03", [1]), as_they_are.store.fmri("test", [1], subjects=["03"])[:, 0]
    )


def test_samples_of_before_there_was_a_choice_are_of_averages(settings, tmp_path):
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"steps": 2}))
    rescaled = open_test(config.overridden(settings, ["evaluation.test_maps=rescaled"]))
    with pytest.raises(InputError, match=r"evaluation\.test_maps: rescaled \| averaged"):
        validate_same_settings(rescaled, tmp_path, but=SCORING)
    averaged = open_test(config.overridden(settings, ["evaluation.test_maps=averaged"]))
    validate_same_settings(averaged, tmp_path, but=SCORING)
