"""An alignment made up here goes all the way: configured, fitted, saved, decoded with.

No file of the package knows of it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glfa_jax import alignments, config, subject_alignment, system
from glfa_jax.alignments import Alignment, Group, register
from glfa_jax.alignments.glfa import Glfa
from glfa_jax.convert import pretrained, transfer
from glfa_jax.data.store import Store
from glfa_jax.errors import InputError
from glfa_jax.method import method_name
from glfa_jax.stages import adapt, cotrain
from glfa_jax.subject_alignment import average_window, encoder_for, layer_for
from tests import stores
from tests.stages import tiny
from tests.stages.test_variants import two_steps
from tests.stages.variants import load_trained, settings_of, store_trained

MASK = np.pad(np.ones((tiny.SIDE - 4, tiny.SIDE - 4), bool), 2)
GAINS = {"01": 0.5, "02": 1.0, "03": 2.0}
CLIPS = {"train": 60, "test": 6}  # of two seconds
# All clips, where others' clips are any: none are left that the new subject has not seen.
MINUTES = {"test-gain": 1.0, "test-spread": 2.0}


class _Multiply(nn.Module):
    shape: tuple[int, int]

    @nn.compact
    def __call__(self, x):
        return x * self.param("gain", nn.initializers.ones, self.shape)


@dataclass(frozen=True)
class _Gain(Alignment):
    """y_p = g_p x_p."""

    floor: float = 0.0

    def layer(self, maps_shape, *, box=None):
        return _Multiply(maps_shape)


@register("test-gain")
class Gain(_Gain):
    """g_p: the least squares solution of g_p maps_p = targets_p."""

    needs = "paired"

    def solve(self, maps, *, targets, group, settings, seed):
        assert targets is not None
        power = np.square(maps).sum((0, 1)) + self.floor
        return {"gain": np.where(group.mask, (maps * targets).sum((0, 1)) / (power + 1e-9), 1)}


@register("test-spread")
class Spread(_Gain):
    """g_p: the group's standard deviation over the subject's; clips need not be shared."""

    needs = "unlabelled"

    def solve(self, maps, *, targets, group, settings, seed):
        assert targets is None or len(targets) == len(maps)
        own, theirs = maps.std((0, 1)), group.maps.std((1, 2)).mean(0)
        return {"gain": np.where(group.mask, theirs / np.maximum(own, 1e-6), 1)}


@register("test-trained")
class Trained(Gain):
    """Drawn along by stage 2, and shared."""

    trainable = True


def write_store(path: Path, *, subjects: tuple[str, ...], alone: bool, identity: str) -> Store:
    """Everybody has the same maps but for a gain; alone: the clips have names of their own."""
    rng = np.random.default_rng(0)
    shape = (tiny.WINDOW, tiny.SIDE, tiny.SIDE)
    common = {split: rng.standard_normal((n, *shape)) * MASK for split, n in CLIPS.items()}
    maps: Any = {
        subject: {split: (GAINS[subject] * x).astype(np.float16) for split, x in common.items()}
        for subject in subjects
    }
    named = {s: [f"{identity if alone else s}{i}.mp4" for i in range(n)] for s, n in CLIPS.items()}
    return stores.write_store(
        path,
        identity=identity,
        mask=MASK,
        videos={s: np.zeros((n, tiny.FRAMES, 8, 8, 3), np.uint8) for s, n in CLIPS.items()},
        maps=maps,
        names=named,
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    path = tmp_path_factory.mktemp("gain") / "store.zarr"
    return write_store(path, subjects=("01", "02", "03"), alone=False, identity="gains")


def gains(settings: config.Config, subject: str) -> np.ndarray:
    return layer_for(settings, load_trained(settings), subject=subject).params["gain"][MASK]


def configured(
    run_dir: Path, store: Store, method: str = "test-gain", **more: Any
) -> config.Config:
    alignment = {"method": method, "per_subject": True, "options": {"floor": 0.01}}
    without = ["contrast", "pretrain"]
    return settings_of(run_dir, store, alignment=alignment, without=without, **more)


def trained(settings: config.Config, store: Store) -> config.Config:
    """With the layers of the training subjects that stage 2 starts from, and leaves."""
    store_trained(settings)
    module, params = cotrain.build_encoder(settings, store)
    folder = system.model_folder(settings, "cotrain") / "encoder"
    alignments.save_encoder(folder, module, jax.device_get(params))
    return settings


def adapted(settings: config.Config) -> config.Config:
    minutes = MINUTES[settings.alignment.method]
    evaluation = config.Evaluation(adapted_minutes=minutes)
    return settings.model_copy(update={"evaluation": evaluation})


@pytest.mark.parametrize("method", ["test-gain", "test-spread"])
def test_it_is_fitted_to_a_new_subject_and_decoded_with(store, tmp_path, method):
    settings = trained(configured(tmp_path, store, method), store)
    for subject, gain in (("01", 1.5), ("02", 0.75)):  # both to their mean
        np.testing.assert_allclose(gains(settings, subject), gain, rtol=0.02)
    with pytest.raises(InputError, match="subject 03: has no alignment layer, only 01, 02 were"):
        subject_alignment.validate_layer(settings, subject="03")

    minutes = MINUTES[method]
    adapt.main(settings, subject="03", minutes=minutes)
    settings = adapted(settings)
    np.testing.assert_allclose(gains(settings, "03"), 0.75 / 2, rtol=0.02)
    folder = tmp_path / "adapt" / f"03-{minutes:g}min" / "model"
    about = json.loads((folder / "config.json").read_text())
    assert about["method"] == method
    assert about["options"] == {"floor": 0.01}
    assert about["report"]["change"] > 0.1
    if method == "test-gain":
        assert about["report"]["distance_after"] < 1e-3 < about["report"]["distance_before"]

    # What is decoded: the encoder sees aligned maps, and another subject's are aligned alike.
    encoder = load_trained(settings)
    fmri = {s: store.fmri("test", range(3), subjects=[s])[:, 0].astype(np.float32) for s in GAINS}
    seen = {}
    for subject, maps in fmri.items():
        own = encoder_for(settings, encoder, subject=subject)
        seen[subject] = jax.jit(own.module.apply)(own.variables, maps)
        np.testing.assert_allclose(seen[subject].aligned, 0.75 * fmri["02"], rtol=0.03, atol=1e-3)
        plain = own.module.apply(own.variables, jnp.asarray(seen[subject].aligned), method="encode")
        np.testing.assert_allclose(seen[subject].condition, plain.condition, atol=1e-5)
    np.testing.assert_allclose(seen["03"].condition, seen["01"].condition, atol=0.02)
    average = average_window(settings, encoder, store=store)
    expected = 0.75 * store.average(subjects=["02"])
    np.testing.assert_allclose(average, expected, rtol=0.03, atol=1e-3)

    before = folder.stat().st_mtime_ns
    adapt.main(settings, subject="03", minutes=minutes)  # finished already
    assert folder.stat().st_mtime_ns == before


def test_stage_two_leaves_it_as_it_was_fitted(store, tmp_path):
    settings = configured(tmp_path, store)
    module, params = cotrain.build_encoder(settings, store)
    _, after = two_steps(settings, tmp_path, module, params)
    assert {name.split("/")[0] for name in after} == {"fmri_encoder", "fmri_encoder_proj"}


def test_stage_two_trains_one_that_says_so(store, tmp_path):
    without = ["contrast", "pretrain"]
    settings = settings_of(tmp_path, store, alignment={"method": "test-trained"}, without=without)
    module, params = cotrain.build_encoder(settings, store)
    np.testing.assert_array_equal(params["func_align_layer"]["gain"], 1)  # fitted to nobody
    before, after = two_steps(settings, tmp_path, module, params)
    name = "func_align_layer/gain"
    assert np.any(after[name] != before[name])


def test_stage_two_trains_a_layer_on_top_of_one_that_was_fitted(store, tmp_path):
    methods = "test-gain floor=0.01, glfa patch_size=8 kernel_size=3"
    alignment = {"method": "composed", "per_subject": True, "options": {"methods": methods}}
    without = ["contrast", "pretrain"]
    settings = settings_of(tmp_path, store, alignment=alignment, without=without)
    module, params = cotrain.build_encoder(settings, store)
    for i, gain in enumerate((1.5, 0.75)):  # both to their mean
        first = params[f"func_align_layers_{i}"]["layers_0"]["gain"]
        np.testing.assert_allclose(first[MASK], gain, rtol=0.02)
    before, after = two_steps(settings, tmp_path, module, params)
    moved = {name for name in after if np.any(after[name] != before[name])}
    for i in (0, 1):
        assert f"func_align_layers_{i}/layers_1/weight" in moved
        assert f"func_align_layers_{i}/layers_0/gain" not in after
    assert method_name(settings) == "test-gain then glfa w/o pretraining, w/o stage 1"


def test_an_encoder_is_loaded_as_it_was_saved(store, tmp_path):
    settings = trained(configured(tmp_path, store), store)
    module, params = cotrain.build_encoder(settings, store)
    loaded = load_trained(settings)
    assert loaded.module == module.clone(dropout=0.0, box=None)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables["params"], params)
    folder = system.model_folder(settings, "cotrain") / "encoder"
    plain = pretrained.load("fmri_encoder", folder)  # what lies beside the alignment
    assert not plain.module.aligned
    with pytest.raises(InputError, match="has another alignment than GLFA"):
        transfer.export_model("fmri_encoder", folder, tmp_path / "official.pth")


def test_only_pairs_need_others_who_saw_the_same(store, tmp_path):
    new = write_store(tmp_path / "new.zarr", subjects=("03",), alone=True, identity="new")
    for method in ("test-spread", "test-gain"):
        settings = trained(configured(tmp_path / method, store, method), store)
        protocol = {"test_store": new.path, "test_subjects": ("03",)}
        protocol = settings.protocol.model_copy(update=protocol)
        settings = settings.model_copy(update={"protocol": protocol})
        if method == "test-gain":
            with pytest.raises(InputError, match="no training subject has seen the first 1 min"):
                adapt.main(settings, subject="03", minutes=MINUTES[method])
        else:
            adapt.main(settings, subject="03", minutes=MINUTES[method])
            np.testing.assert_allclose(gains(adapted(settings), "03"), 0.75 / 2, rtol=0.1)


def test_in_memory_without_any_run(tmp_path):
    rng = np.random.default_rng(0)
    method = Gain()
    maps = rng.standard_normal((5, 2, 16, 16)).astype(np.float32) * MASK
    group = Group(3 * maps[None], MASK)
    fitted = method.fit(maps, targets=3 * maps, group=group)
    np.testing.assert_allclose(fitted.params["gain"][MASK], 3, rtol=1e-5)
    assert fitted.report["distance_before"] == pytest.approx(fitted.report["change"], rel=1e-4)
    method.save(tmp_path, fitted.params, maps_shape=(16, 16))
    params = method.init(jax.random.key(0), maps_shape=(16, 16), subjects=("01",))
    params["03"] = method.load(tmp_path, maps_shape=(16, 16))
    np.testing.assert_array_equal(params["03"]["gain"], fitted.params["gain"])
    aligned = method.apply(params, jnp.asarray(maps), subject="03")
    np.testing.assert_allclose(aligned, 3 * maps, rtol=1e-5)
    np.testing.assert_array_equal(method.apply(params, jnp.asarray(maps), subject="01"), maps)
    with pytest.raises(InputError, match="subject 02: has no alignment, only 01, 03 have"):
        method.apply(params, jnp.asarray(maps), subject="02")
    Glfa(8, 3).save(tmp_path, {"weight": np.ones((9, 16, 16))}, maps_shape=(16, 16))
    with pytest.raises(InputError, match="missing: gain"):
        method.load(tmp_path, maps_shape=(16, 16))


@pytest.mark.parametrize(
    ("maps", "targets", "said"),
    [
        (np.zeros((3, 2, 16, 16)), None, "test-gain needs what others have of the clips"),
        (np.zeros((3, 16, 16)), np.zeros((3, 16, 16)), "maps: have the shape .3, 16, 16., must"),
        (np.zeros((3, 2, 8, 16)), np.zeros((3, 2, 8, 16)), "with the mask's .16, 16. and the sam"),
        (np.zeros((3, 2, 16, 16)), np.zeros((2, 2, 16, 16)), "targets: have the shape .2, 2, 16"),
        (np.full((3, 2, 16, 16), np.nan), np.zeros((3, 2, 16, 16)), "maps: hold numbers that are"),
    ],
)
def test_maps_that_it_cannot_be_fitted_to(maps, targets, said):
    with pytest.raises(InputError, match=said):
        Gain().fit(maps, targets=targets, group=Group(np.zeros((1, 3, 2, 16, 16)), MASK))


@pytest.mark.parametrize(
    ("alignment", "said"),
    [
        (
            {"method": "ridges"},
            "alignment.method: 'ridges' is no alignment, must be .*glfa, .*identity, .*test-g",
        ),
        ({"method": "test-gain"}, "alignment.per_subject: must be true with alignment.method test"),
        (
            {"method": "test-gain", "per_subject": True, "options": {"alpha": 1}},
            "alignment.options: alpha, but the options of alignment.method test-gain are floor",
        ),
        (
            {"method": "test-gain", "per_subject": True, "options": {"floor": -1.0}},
            "alignment.options: floor is -1.0, must be a number from 0",
        ),
        ({"options": {"floor": 1}}, "alignment.options: must be left out with alignment.method gl"),
    ],
)
def test_what_cannot_be_configured_is_said_before_all_else(store, tmp_path, alignment, said):
    settings = settings_of(tmp_path, store, alignment=alignment)
    with pytest.raises(InputError, match=said):
        alignments.configured(settings)
    with pytest.raises(InputError, match=said):
        system.fmri_encoder(settings, clip_dim=6, tokens=5, dropout=0.0, aligned=True)
