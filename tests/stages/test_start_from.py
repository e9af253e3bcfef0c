"""Stages that start from a folder: with its weights, in place of earlier stages, and of nothing
else afterwards."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from glfa_jax import alignments, config, start_from, system
from glfa_jax.convert import pretrained
from glfa_jax.convert.pretrained import Pretrained
from glfa_jax.data.store import Store
from glfa_jax.errors import InputError, TrainingError
from glfa_jax.evaluation.trained import training_of
from glfa_jax.stages import contrast, cotrain, pretrain
from glfa_jax.stages import running as stages
from glfa_jax.training.loop import check_unchanged, keep_config
from tests.stages import tiny
from tests.stages.displaced import write_store
from tests.stages.variants import FOUNDATION, settings_of

# What the simulated foundation's CLIP and generator have.
OF_FOUNDATION = {"clip_dim": 64, "tokens": 20, "token_dim": 64}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return write_store(tmp_path_factory.mktemp("start_from") / "store.zarr")


@pytest.fixture(scope="module")
def released(store, tmp_path_factory) -> Path:
    """An autoencoder, and encoders with GLFA's layer, without any, and with one a subject."""
    root = tmp_path_factory.mktemp("released")
    settings = settings_of(root, store)
    module: Any = system.autoencoder(settings)
    save(root / "autoencoder", module)
    save(root / "without-decoder", module.clone(decoder=False))
    for name, sections, aligned in (
        ("encoder", {}, True),
        ("plain", {}, False),
        ("own", {"alignment": {"per_subject": True}}, True),
    ):
        own = settings_of(root, store, **sections)
        save(root / name, system.fmri_encoder(own, **OF_FOUNDATION, dropout=0.0, aligned=aligned))
    return root


def save(folder: Path, module: Any) -> None:
    kind = "fmri_encoder" if hasattr(module, "clip_dim") else "fmri_autoencoder"
    params = tiny.random_params(pretrained.parameter_shapes(kind, module))
    system.save_own(kind, folder, module, params)


def params_in(folder: Path) -> dict:
    kind = "fmri_autoencoder" if folder.name == "autoencoder" else "fmri_encoder"
    return pretrained.load(kind, folder).variables["params"]


def assert_same(ours: dict, theirs: dict) -> None:
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


# --- from which weights ---------------------------------------------------------------------------


def pretraining(run_dir: Path, store: Store, folder: Path | None, **more: Any) -> config.Config:
    """A step that hardly moves anything."""
    own = {"steps": 1, "batch_size": 4, "learning_rate": 1e-12, "start_from": folder} | more
    return settings_of(run_dir, store, pretrain=own)


def test_fine_tuning_starts_from_the_folder_and_goes_on_with_no_other(
    store, released, tmp_path, capsys
):
    settings = pretraining(tmp_path, store, released / "autoencoder")
    pretrain.run(settings, store)
    said = capsys.readouterr().out
    assert f"(protocol strict), from {released / 'autoencoder'}\n" in said
    trained = params_in_model(settings)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-9),
        trained,
        params_in(released / "autoencoder"),
    )
    told = start_from.told(settings, "pretrain")["start_from"]
    assert told.name == f"{released.name}/autoencoder"
    assert training_of(settings, checkpoint=1)["pretrain.start_from"] == json.dumps(str(told))
    assert told.sha256[:16] in str(told)

    # The same weights elsewhere are the same, be the stage finished or to be gone on with.
    moved = shutil.copytree(released / "autoencoder", tmp_path / "moved")
    longer = pretraining(tmp_path, store, moved, steps=2)
    start_from.validate(longer, "pretrain")
    pretrain.run(longer, store)
    assert "going on from step 1" in capsys.readouterr().out

    # Others are not: neither in the check at the start nor where the checkpoint is read.
    other = tmp_path / "other"
    save(other, system.autoencoder(settings).clone(dropout=0.0))
    change_a_weight(other)
    for folder in (other, None):
        wrong = pretraining(tmp_path, store, folder, steps=3)
        with pytest.raises(InputError, match=r"pretrain\.start_from: .* but .* started from"):
            start_from.validate(wrong, "pretrain")
        with pytest.raises(TrainingError, match=r"belongs to another run .*start: "):
            pretrain.run(wrong, store)


def params_in_model(settings: config.Config) -> dict:
    folder = system.model_folder(settings, "pretrain")
    return pretrained.load("fmri_autoencoder", folder).variables["params"]


def change_a_weight(folder: Path) -> None:
    module, variables = pretrained.load("fmri_autoencoder", folder)
    changed = jax.tree.map(lambda x: x + 1, variables["params"])
    shutil.rmtree(folder)
    system.save_own("fmri_autoencoder", folder, module, changed)


def test_without_a_folder_it_says_so_and_no_folder_can_be_given_later(
    store, released, tmp_path, capsys
):
    settings = pretraining(tmp_path, store, None)
    pretrain.run(settings, store)
    assert "from random weights, as in the paper's ablation without pretraining" in (
        capsys.readouterr().out
    )
    assert not (tmp_path / "pretrain" / start_from.FILE).exists()
    assert training_of(settings, checkpoint=1)["pretrain.start_from"] == '"random weights"'
    later = pretraining(tmp_path, store, released / "autoencoder", steps=2)
    with pytest.raises(InputError, match=r"autoencoder, but .* started from nothing; use another"):
        start_from.validate(later, "pretrain")


def test_a_checkpoint_of_before_there_was_a_choice_is_gone_on_with(store, tmp_path):
    """Its fingerprint has no word of a start, nor of other options that came later."""
    settings = pretraining(tmp_path, store, None)
    pretrain.run(settings, store)
    about = tmp_path / "pretrain" / "checkpoints" / "1" / "about" / "metadata"
    kept = json.loads(about.read_text())["fingerprint"]
    assert kept.keys() == {"name", "seed", "stage", "data"}
    assert "start_from" not in kept["stage"]


def test_stage_one_starts_from_an_encoder_without_its_alignment(store, released, tmp_path):
    for name in ("encoder", "plain", "own"):
        settings = settings_of(tmp_path, store, contrast={"start_from": released / name})
        start_from.validate(settings, "contrast")
        module = system.fmri_encoder(settings, **OF_FOUNDATION, dropout=0.0, aligned=False)
        found = contrast.init_params(settings, module)
        wanted = pretrained.parameter_shapes("fmri_encoder", module)
        assert jax.tree.map(np.shape, found) == jax.tree.map(np.shape, wanted)
        theirs = pretrained.load("fmri_encoder", released / name).variables["params"]
        assert_same(found, {key: theirs[key] for key in found})


def test_stage_two_starts_from_an_encoder_with_its_alignment(store, released, tmp_path):
    settings = settings_of(tmp_path, store, cotrain={"encoder_from": released / "encoder"})
    start_from.validate(settings, "cotrain")
    module, params = cotrain.build_encoder(settings, store)
    assert module.aligned
    assert_same(params, params_in(released / "encoder"))


def test_stage_two_gives_an_encoder_without_alignment_a_fresh_one(store, released, tmp_path):
    settings = settings_of(tmp_path, store, cotrain={"encoder_from": released / "plain"})
    start_from.validate(settings, "cotrain")
    module, params = cotrain.build_encoder(settings, store)
    theirs = params_in(released / "plain")
    assert set(params) - set(theirs) == {"func_align_layer"}
    assert_same({key: params[key] for key in theirs}, theirs)
    encoder = Pretrained(module, {"params": params})
    fmri = store.fmri("train", [0], subjects=["01"])[:, 0].astype(np.float32)
    assert np.abs(alignments.align(encoder, fmri) - fmri).max() < 5e-3


# --- what is left out -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sections", "needed"),
    [
        ({}, ["pretrain", "contrast", "cotrain"]),
        ({"pretrain": "autoencoder"}, ["pretrain", "contrast", "cotrain"]),
        ({"contrast": "encoder"}, ["contrast", "cotrain"]),
        ({"cotrain": "encoder"}, ["cotrain"]),
        ({"contrast": "plain", "cotrain": "encoder"}, ["cotrain"]),
    ],
)
def test_stages_of_which_nothing_is_used_are_left_out(
    sections, needed, store, released, tmp_path, capsys
):
    keys = {"pretrain": "start_from", "contrast": "start_from", "cotrain": "encoder_from"}
    given = {name: {keys[name]: released / folder} for name, folder in sections.items()}
    settings = settings_of(tmp_path, store, **given)
    assert stages.needed_stages(settings) == needed
    for name in ("pretrain", "contrast"):
        assert stages.complete(settings, name) == (name not in needed)
        left_out = f"{name}: left out, nothing of it is used" in capsys.readouterr().out
        assert left_out == (name not in needed)
    told = training_of(settings, checkpoint=1)
    assert {key.partition(".")[0] for key in told} >= set(needed)
    for name in {"pretrain", "contrast"} - set(needed):
        assert not any(key.startswith(f"{name}.") for key in told)


def test_a_generator_alone_leaves_no_stage_out(store, tmp_path):
    settings = settings_of(tmp_path, store, cotrain={"generator_from": FOUNDATION})
    assert stages.needed_stages(settings) == ["pretrain", "contrast", "cotrain"]


# --- what is rejected -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (
            {"pretrain": {"start_from": "autoencoder"}, "encoder": {"latent": 8, "depth": 2}},
            "pretrain.start_from: {}/autoencoder has another architecture, encoder.depth is 1 "
            "there and 2 here, encoder.latent is 4 there and 8 here",
        ),
        (
            {"pretrain": {"start_from": "without-decoder"}},
            "pretrain.start_from: {}/without-decoder has no decoder; import it without",
        ),
        (
            {"pretrain": {"start_from": "nowhere"}},
            "pretrain.start_from: {}/nowhere is not there; python -m glfa_jax.convert import "
            "--kind fmri_autoencoder makes it of released weights; null starts without",
        ),
        (
            {"contrast": {"start_from": "plain"}, "conditioning": {"hidden_tokens": 6}},
            "another architecture, conditioning.hidden_tokens is 4 there and 6 here",
        ),
        (
            {"cotrain": {"encoder_from": "encoder"}, "alignment": {"kernel_size": 5}},
            "another architecture, alignment.kernel_size is 3 there and 5 here",
        ),
        (
            {"cotrain": {"encoder_from": "encoder"}, "alignment": {"per_subject": True}},
            "the number of alignment.per_subject layers is 0 there and 2 here",
        ),
        (
            {"cotrain": {"encoder_from": "own"}},
            "the number of alignment.per_subject layers is 2 there and 0 here",
        ),
        (
            {
                "cotrain": {"encoder_from": "encoder"},
                "alignment": {"global_part": False, "local_part": False},
            },
            "alignment.global_part is True there and False here",
        ),
        (
            {"pretrain": {"start_from": "encoder"}},
            "{}/encoder: its configuration describes no fmri_autoencoder model",
        ),
    ],
)
def test_another_architecture_is_named_from_the_configuration_alone(
    sections, said, store, released, tmp_path
):
    for path in released.glob("*"):  # without any weights
        (tmp_path / path.name).mkdir()
        shutil.copy(path / "config.json", tmp_path / path.name)
    (stage,) = (name for name in ("pretrain", "contrast", "cotrain") if name in sections)
    key = next(iter(sections[stage]))
    given = sections | {stage: {key: tmp_path / sections[stage][key]}}
    small = {"width": tiny.WIDTH, "num_heads": 2, "patch_size": 8, "depth": 1, "decoder_depth": 1}
    given["encoder"] = small | {"latent": 4} | given.get("encoder", {})
    conditioning = {"hidden_tokens": 4, "num_heads": 2} | given.get("conditioning", {})
    settings = settings_of(tmp_path / "run", store, **given | {"conditioning": conditioning})
    with pytest.raises(InputError, match=re.escape(said.format(tmp_path))) as error:
        start_from.validate(settings, stage)
    assert len(str(error.value).splitlines()) == 1


def test_weights_that_are_not_all_there_are_rejected_at_the_start(store, released, tmp_path):
    folder = shutil.copytree(released / "autoencoder", tmp_path / "autoencoder")
    (folder / "model.safetensors").unlink()
    settings = settings_of(tmp_path / "run", store, pretrain={"start_from": folder})
    with pytest.raises(InputError, match="autoencoder: holds no weights"):
        start_from.validate(settings, "pretrain")


def test_a_generator_of_another_architecture_is_rejected(store, tmp_path):
    folder = shutil.copytree(FOUNDATION / "text-to-video" / "unet", tmp_path / "unet")
    settings = settings_of(tmp_path / "run", store, cotrain={"generator_from": tmp_path})
    start_from.validate(settings, "cotrain")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"norm_eps": 1e-3}))
    with pytest.raises(InputError, match=r"unet: has another architecture than .*text-to-video"):
        start_from.validate(settings, "cotrain")


def test_a_folder_that_has_served_may_go_and_its_path_is_no_option(store, released, tmp_path):
    folder = shutil.copytree(released / "encoder", tmp_path / "encoder")
    settings = settings_of(tmp_path / "run", store, cotrain={"encoder_from": folder})
    keep_config(settings.run_dir, settings)
    start_from.write(settings, "cotrain", start_from.starts(settings, "cotrain"))
    system.model_folder(settings, "cotrain").mkdir(parents=True)
    start_from.validate(settings, "cotrain")
    elsewhere = folder.rename(tmp_path / "elsewhere")
    start_from.validate(settings, "cotrain")
    moved = settings_of(tmp_path / "run", store, cotrain={"encoder_from": elsewhere})
    check_unchanged(settings.run_dir, moved)
    start_from.validate(moved, "cotrain")
