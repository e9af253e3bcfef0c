"""Variants by configuration alone: stages left out, and an alignment layer for every subject."""

import json
import re
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from flax.traverse_util import flatten_dict

from benchmarks.models import TINY
from glfa_jax import config, system
from glfa_jax.alignments import align
from glfa_jax.convert import pretrained, transfer
from glfa_jax.diffusion.schedule import MODELSCOPE
from glfa_jax.errors import InputError, TrainingError
from glfa_jax.generators.unet3d import UNet3DGenerator
from glfa_jax.stages import contrast, cotrain, pretrain
from glfa_jax.stages import running as stages
from glfa_jax.subject_alignment import average_window, encoder_for
from glfa_jax.trained.model import Model
from glfa_jax.trained.sampler import variables_of
from glfa_jax.training.loop import validate_unchanged
from glfa_jax.training.optim import split
from glfa_jax.training.sharding import make_mesh
from tests.stages import tiny
from tests.stages.displaced import MASK, write_store
from tests.stages.variants import load_trained, settings_of, store_trained

OWN = {"alignment": {"per_subject": True}}
LAYERS = ("func_align_layers_0", "func_align_layers_1")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("variants") / "store.zarr")


@pytest.fixture(scope="module")
def own(store, tmp_path_factory):
    """Settings and parameters of a trained run in which every subject has a layer."""
    settings = settings_of(tmp_path_factory.mktemp("own"), store, **OWN)
    return settings, store_trained(settings)


class Unet:
    """Stands for the UNet: it takes the condition for the noise."""

    def apply(self, variables: dict, noisy: Any, t: Any, condition: Any) -> Any:
        seen = condition.mean(1)[:, None, None, None, :4]
        return noisy * variables["params"]["attn1"]["gain"] + seen


def two_steps(settings: config.Config, folder: Path, module: Any, params: dict) -> tuple[dict, ...]:
    """Encoder parameters before and after."""
    unet: Any = Unet()
    vae: Any = pretrained.build("vae", TINY["vae"])
    generator = UNet3DGenerator(Path(), unet, vae, MODELSCOPE)
    groups = cotrain.groups(settings, generator)
    parts = split(
        {"encoder": params, "unet": {"attn1": {"gain": np.ones(1, np.float32)}}}, groups=groups
    )
    given = {
        "init": parts.trainable,
        "frozen": {"fixed": parts.frozen, "codec": None, "mask": MASK.astype(np.float32)},
        "loss_fn": cotrain.loss_of(settings.cotrain, module, generator),
        "groups": groups,
        "make": tiny.clips_as_latents,
    }
    found = tiny.run("cotrain", folder, hardware=config.Hardware(), given=given, steps=2)
    assert np.isfinite(found["log loss"]).all()
    prefix = "encoder/"
    after = {k.removeprefix(prefix): x for k, x in found.items() if k.startswith(prefix)}
    return flatten_dict(params, sep="/"), after


# --- stages left out ------------------------------------------------------------------------------


def test_without_both_stages_it_trains_from_random_weights(store, tmp_path):
    settings = settings_of(
        tmp_path,
        store,
        without=["contrast", "pretrain"],
        cotrain={"steps": 2, "glfa_scale": 0},
    )
    module, params = cotrain.build_encoder(settings, store)
    assert (module.tokens, module.clip_dim) == (20, 64)  # the foundation's
    assert not list(tmp_path.iterdir())
    before, after = two_steps(settings, tmp_path, module, params)
    moved = {name.split("/")[0] for name, x in after.items() if np.any(x != before[name])}
    assert moved == {"func_align_layer", "fmri_encoder", "fmri_encoder_proj"}


def test_without_stage_one_it_starts_from_the_autoencoder(store, tmp_path):
    settings = settings_of(tmp_path, store, without=["contrast"])
    autoencoder = system.autoencoder(settings)
    trained = tiny.random_params(pretrained.parameter_shapes("fmri_autoencoder", autoencoder))
    folder = system.model_folder(settings, "pretrain")
    system.save_own("fmri_autoencoder", folder, autoencoder, trained)
    _, params = cotrain.build_encoder(settings, store)
    ours = params["fmri_encoder"]["transformer"]
    assert len(jax.tree.leaves(ours)) > 10
    jax.tree.map(np.testing.assert_array_equal, ours, {name: trained[name] for name in ours})


def test_without_pretraining_stage_one_starts_at_random(store, tmp_path):
    settings = settings_of(tmp_path, store, without=["pretrain"])
    module = system.fmri_encoder(settings, clip_dim=6, tokens=5, dropout=0.0, aligned=False)
    shapes = pretrained.parameter_shapes("fmri_encoder", module)
    params = contrast.init_params(settings, module)  # there is no pretrained model to be had
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)


@pytest.mark.parametrize(
    ("left_out", "ran"),
    [
        ([], ["contrast"]),
        (["pretrain"], ["contrast"]),
        (["contrast"], ["pretrain"]),
        (["pretrain", "contrast"], []),
    ],
)
def test_only_what_is_not_left_out_runs(store, tmp_path, monkeypatch, left_out, ran):
    """Stage 1 runs pretraining itself."""
    settings = settings_of(tmp_path, store, without=left_out)
    began = []

    def begin(name):
        def run(settings, store):
            if not stages.complete(settings, name):
                began.append(name)

        return run

    class Enough(Exception):
        pass

    def stop(*_):
        raise Enough

    monkeypatch.setattr(system, "generator", lambda _: Mock())
    monkeypatch.setattr(cotrain, "build_encoder", stop)
    monkeypatch.setattr(pretrain, "run", begin("pretrain"))
    monkeypatch.setattr(contrast, "run", begin("contrast"))
    with pytest.raises(Enough):
        cotrain.run(settings, store)
    assert began == ran


def test_a_run_keeps_its_configuration_where_fewer_steps_are_rejected(store, tmp_path):
    settings = settings_of(tmp_path, store, cotrain={"steps": 4})
    (tmp_path / "cotrain" / "checkpoints" / "5").mkdir(parents=True)
    (tmp_path / "config.yaml").write_text(before := config.dump(settings))
    fewer = settings_of(tmp_path, store, cotrain={"steps": 4, "log_every": 3})
    with (
        pytest.raises(InputError, match=r"cotrain.steps: 4, but .* trained for 5 steps already"),
        stages.begun(fewer),
    ):
        pass
    assert (tmp_path / "config.yaml").read_text() == before


def test_a_run_from_before_these_keys_goes_on_and_changing_them_is_rejected(store, tmp_path):
    settings = settings_of(tmp_path, store)
    tree = yaml.safe_load(config.dump(settings))
    for key in ("without", "adapt"):
        del tree[key]
    del tree["alignment"]["per_subject"], tree["evaluation"]["adapted_minutes"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    validate_unchanged(tmp_path, settings)
    validate_unchanged(tmp_path, settings_of(tmp_path, store, adapt={"steps": 7}))
    for sections, said in (
        ({"without": ["pretrain"]}, "without: ['pretrain'] | []"),
        (OWN, "alignment.per_subject: True | False"),
    ):
        with pytest.raises(TrainingError, match=re.escape(said)):
            validate_unchanged(tmp_path, settings_of(tmp_path, store, **sections))


# --- a layer for every subject --------------------------------------------------------------------


def test_own_layers_train_and_are_the_identity_at_first(store, tmp_path):
    settings = settings_of(tmp_path, store, without=["contrast", "pretrain"], **OWN)
    module, params = cotrain.build_encoder(settings, store)
    layers = [params[name] for name in LAYERS]
    assert np.any(layers[0]["weight"] != layers[1]["weight"])
    fmri = np.random.default_rng(0).standard_normal((3, 2, 2, 16, 16), np.float32) * MASK
    aligned = jax.jit(lambda x: module.apply({"params": params}, x, method="align"))(fmri)
    assert np.abs(aligned - fmri).max() < 5e-3
    before, after = two_steps(settings, tmp_path, module, params)
    for name in LAYERS:
        assert np.any(after[f"{name}/weight"] != before[f"{name}/weight"])


def test_a_layer_gets_gradients_from_its_own_subject_only(own):
    settings, params = own
    module = load_trained(settings).module
    fmri = np.random.default_rng(1).standard_normal((3, 2, 2, 16, 16), np.float32)

    @jax.jit
    @jax.grad
    def gradients(params, weight):
        aligned = module.apply({"params": params}, fmri, method="align")
        return (jnp.square(aligned).mean((0, 2, 3, 4)) * weight).sum()

    for subject in (0, 1):
        found = gradients(params, jnp.eye(2)[subject])
        mine, other = (found[LAYERS[i]] for i in (subject, 1 - subject))
        assert all(np.abs(x).max() > 1e-4 for x in jax.tree.leaves(mine))
        assert not any(np.any(x) for x in jax.tree.leaves(other))


def test_own_layers_are_saved_and_loaded(own):
    settings, params = own
    loaded = load_trained(settings)
    assert loaded.module.subjects == 2
    jax.tree.map(np.testing.assert_array_equal, loaded.variables["params"], params)
    folder = system.model_folder(settings, "cotrain") / "encoder"
    assert json.loads((folder / "config.json").read_text())["subjects"] == 2
    with pytest.raises(InputError, match="an alignment layer for every subject"):
        transfer.export_model("fmri_encoder", folder, settings.run_dir / "official.pth")


def test_windows_of_other_numbers_of_subjects_are_rejected(own):
    loaded = load_trained(own[0])
    with pytest.raises(ValueError, match=r"must hold windows of 2 subjects along axis -4"):
        loaded.module.apply(loaded.variables, jnp.zeros((3, 3, 2, 16, 16)), method="align")


def test_at_evaluation_every_subject_goes_through_its_own(own, store):
    settings, _ = own
    trained = load_trained(settings)
    fmri = store.fmri("test", range(4), subjects=("01", "02")).astype(np.float32)
    together = trained.module.apply(trained.variables, fmri, method="align")
    alone = [encoder_for(settings, trained, subject=s) for s in ("01", "02")]
    for i, encoder in enumerate(alone):
        assert encoder.module.subjects == 0
        np.testing.assert_allclose(align(encoder, fmri[:, i]), together[:, i], atol=1e-6)
    average = average_window(settings, trained, store=store)
    parts = [store.average(subjects=[s]) for s in ("01", "02")]
    expected = sum(align(e, x) for e, x in zip(alone, parts, strict=True)) / 2
    np.testing.assert_allclose(average, expected, atol=1e-6)


def test_a_subject_without_a_layer_is_rejected_naming_what_fits_one(own):
    settings, _ = own
    with pytest.raises(InputError, match=r"subject 03: has no alignment layer.*train\.adapt"):
        encoder_for(settings, load_trained(settings), subject="03")


def test_subjects_share_all_parameters_but_their_layers(own):
    settings, _ = own
    generator: Any = None
    decoder = Model(load_trained(settings), generator, {"x": np.ones(3)}, {"x": np.ones(3)})
    encoders = {s: encoder_for(settings, decoder.encoder, subject=s) for s in ("01", "02")}
    mesh = make_mesh(settings.hardware.mesh, devices=jax.devices()[:1])
    found = variables_of(decoder, encoders, mesh=mesh, from_bytes=0)
    first, second = found.values()
    assert first["denoiser"]["x"] is second["denoiser"]["x"]
    (first, second) = (x["encoder"]["params"] for x in (first, second))
    assert first.keys() == second.keys()
    leaf = {
        name: (jax.tree.leaves(first[name])[0], jax.tree.leaves(second[name])[0]) for name in first
    }
    shared = {name for name, (ours, theirs) in leaf.items() if ours is theirs}
    assert first.keys() - shared == {"func_align_layer"}


def test_own_layers_need_an_alignment(store, tmp_path):
    with pytest.raises(ValueError, match="per_subject: must be false when"):
        settings_of(
            tmp_path,
            store,
            alignment={"per_subject": True, "global_part": False, "local_part": False},
        )
