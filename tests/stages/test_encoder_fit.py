"""The encoder, trained behind a new subject's layer: it helps where the layer cannot, and no harm.

The difference is known: everything that the new subject's maps show has one added to it, which a
gain at every pixel cannot undo.
"""

import json
import re

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from glfa_jax import alignments, config, subject_alignment, system
from glfa_jax.config import ConfigError
from glfa_jax.convert.pretrained import in_memory
from glfa_jax.data.store import Split
from glfa_jax.errors import InputError, TrainingError
from glfa_jax.method import method_name
from glfa_jax.stages import adapt
from glfa_jax.stages.encoder_fit import tokens
from glfa_jax.subject_alignment import encoder_for, fitted_stage, layer_for
from tests import stores
from tests.alignments import test_gain
from tests.stages import tiny
from tests.stages.variants import load_trained, settings_of, store_trained

assert test_gain.Gain  # it is registered by its name
CLIPS: dict[Split, int] = {"train": 30, "test": 12}
MINUTES = 1.0  # 30 clips, of which 6 are held out
FOLDER = "adapt/03-1min-test-gain-with-encoder"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Maps that are alike but for noise of each subject's own and what is added to the third's."""
    rng, maps = np.random.default_rng(0), {name: {} for name in ("01", "02", "03")}
    for split, clips in CLIPS.items():
        shape = (clips, tiny.WINDOW, tiny.SIDE, tiny.SIDE)
        common = rng.standard_normal(shape)
        for name, own in maps.items():
            found = common + 0.2 * rng.standard_normal(shape) + (name == "03")
            own[split] = (found * test_gain.MASK).astype(np.float16)
    return stores.write_store(
        tmp_path_factory.mktemp("added") / "store.zarr",
        identity="added",
        mask=test_gain.MASK,
        videos={s: np.zeros((n, tiny.FRAMES, 8, 8, 3), np.uint8) for s, n in CLIPS.items()},
        maps=maps,
    )


def configured(run_dir, store, *sets: str, **chosen) -> config.Config:
    """A finished run; chosen: of `adapt.encoder`."""
    encoder = {"steps": 60, "learning_rate": 3e-3, "batch_size": 8, "warmup_steps": 10} | chosen
    own = {"steps": 20, "learning_rate": 0.03, "batch_size": 10, "encoder": encoder}
    settings = settings_of(
        run_dir, store, evaluation={"adapted_minutes": MINUTES}, adapt={"method": "test-gain"} | own
    )
    settings = config.overridden(settings, sets)
    store_trained(settings)
    return settings


def without_encoder(settings: config.Config) -> config.Config:
    return config.overridden(settings, ["adapt.encoder.steps=0"])


@pytest.fixture(scope="module")
def fitted(store, tmp_path_factory) -> config.Config:
    settings = configured(tmp_path_factory.mktemp("encoder"), store)
    adapt.main(settings, subject="03", minutes=MINUTES)
    adapt.main(without_encoder(settings), subject="03", minutes=MINUTES)
    return settings


def described(settings: config.Config, folder: str = FOLDER) -> dict:
    return json.loads((settings.run_dir / folder / "model" / "config.json").read_text())


def condition(settings: config.Config, store, *, subject: str, split, clips) -> np.ndarray:
    own = encoder_for(settings, load_trained(settings), subject=subject)
    maps = store.fmri(split, clips, subjects=[subject])[:, 0].astype(np.float32)
    return tokens(own.module, in_memory(own.variables["params"]), maps, size=8)


def distance(settings: config.Config, store, *, split, clips) -> float:
    """Mean squared, of the new subject's tokens from the mean of the training subjects'."""
    given = {"split": split, "clips": clips}
    theirs = [condition(settings, store, subject=one, **given) for one in ("01", "02")]
    own = condition(settings, store, subject="03", **given)
    return float(np.square(own - np.mean(theirs, axis=0)).mean())


def test_held_out_tokens_come_nearer_where_the_layer_cannot_help(fitted, store):
    report = described(fitted)["report"]
    assert report["tokens_after"] < 0.7 * report["tokens_before"]
    assert report["encoder_step"] > 0
    # What is decoded with is what was measured.
    held = range(24, 30)
    after = distance(fitted, store, split="train", clips=held)
    assert after == pytest.approx(report["tokens_after"], rel=1e-4)
    before = distance(without_encoder(fitted), store, split="train", clips=held)
    assert before == pytest.approx(report["tokens_before"], rel=1e-4)
    # And it holds for clips that nothing was fitted to.
    layer, encoder = (
        distance(own, store, split="test", clips=range(12))
        for own in (without_encoder(fitted), fitted)
    )
    assert encoder < 0.7 * layer


def test_the_best_is_kept_and_training_ends_soon_after(fitted):
    about = described(fitted)
    steps, losses = zip(*about["encoder_fit"]["curve"], strict=True)
    assert steps[:3] == (0, 10, 20)
    best = int(np.argmin(losses))
    assert steps[best] == about["report"]["encoder_step"]
    assert losses[best] == about["report"]["tokens_after"]
    assert len(losses) - 1 == best + 5 or steps[-1] == 60
    assert about["encoder_fit"]["held_out_clips"] == 6


def test_what_stage_two_trains_is_trained_but_for_the_layer(fitted):
    trained = load_trained(fitted)
    own = encoder_for(fitted, trained, subject="03")
    before = flatten_dict(trained.variables["params"], sep="/")
    after = flatten_dict(own.variables["params"], sep="/")
    changed = {n for n in before.keys() & after if np.any(np.asarray(after[n]) != before[n])}
    stays = {n for n in before if re.search("fmri2clip|logit_scale|pos_embed", n)}
    assert stays
    wanted = {n for n in before if n.startswith(("fmri_encoder/", "fmri_encoder_proj/"))} - stays
    # Biases of keys have no gradient, softmax does not see them.
    assert wanted - changed <= {n for n in wanted if n.endswith("bias")}
    assert changed <= wanted
    alone = layer_for(without_encoder(fitted), trained, subject="03")
    layer = layer_for(fitted, trained, subject="03")
    assert alone is not None
    assert layer is not None
    np.testing.assert_array_equal(layer.params["gain"], alone.params["gain"])
    np.testing.assert_array_equal(after["func_align_layer/gain"], alone.params["gain"])
    assert not described(fitted)["encoder_fit"]["layer_trained"]
    # Training subjects keep theirs.
    known = encoder_for(fitted, trained, subject="01").variables["params"]
    assert all(x is before[n] for n, x in flatten_dict(known, sep="/").items())


def test_steps_that_are_too_long_leave_it_as_it_was(store, tmp_path, capsys):
    settings = configured(tmp_path, store, learning_rate=3.0, warmup_steps=0, patience=2)
    adapt.main(settings, subject="03", minutes=MINUTES)
    assert "did not fall in 20 steps, the encoder stays as it was" in capsys.readouterr().out
    about = described(settings)
    assert about["report"]["encoder_step"] == 0
    assert about["report"]["tokens_after"] == about["report"]["tokens_before"]
    trained = load_trained(settings)
    own = encoder_for(settings, trained, subject="03").variables["params"]
    for part in ("fmri_encoder", "fmri_encoder_proj", "fmri2clip"):
        jax.tree.map(np.testing.assert_array_equal, own[part], trained.variables["params"][part])
    page = (tmp_path / FOLDER / "index.html").read_text()
    assert "Training the encoder as well brought nothing" in page


def test_its_page_says_what_it_brought(fitted):
    page = (fitted.run_dir / FOLDER / "index.html").read_text()
    report = described(fitted)["report"]
    fell = 1 - report["tokens_after"] / report["tokens_before"]
    assert f"in the clips that were held out, its loss fell by {fell:.0%}" in page
    assert "In the last 6 clips" in page
    assert "Loss in clips that were held out, over steps" in page
    alone = fitted.run_dir / FOLDER.removesuffix("-with-encoder") / "index.html"
    assert "encoder" not in re.sub("<[^>]*>", "", alone.read_text().partition("<body")[2])


def test_a_layer_that_descends_a_gradient_is_trained_along(store, tmp_path):
    sets = ("adapt.method=glfa", "adapt.encoder.steps=20")
    settings = configured(tmp_path, store, *sets)
    adapt.main(settings, subject="03", minutes=MINUTES)
    adapt.main(without_encoder(settings), subject="03", minutes=MINUTES)
    about = described(settings, "adapt/03-1min-glfa-with-encoder")
    assert about["encoder_fit"]["layer_trained"]
    assert about["report"]["encoder_step"] > 0
    trained = load_trained(settings)
    alone, layer = (
        layer_for(own, trained, subject="03") for own in (without_encoder(settings), settings)
    )
    assert alone is not None
    assert layer is not None
    assert np.any(alone.params["weight"] != layer.params["weight"])
    own = encoder_for(settings, trained, subject="03").variables["params"]["func_align_layer"]
    jax.tree.map(np.testing.assert_array_equal, layer.params, own)


def test_begun_anew_it_is_the_same_and_finished_it_stays(fitted, store, tmp_path):
    before = described(fitted)
    adapt.main(fitted, subject="03", minutes=MINUTES)
    assert described(fitted) == before
    again = config.overridden(fitted, [f"run_dir={tmp_path}"])
    store_trained(again)
    adapt.main(without_encoder(again), subject="03", minutes=MINUTES, encoder=True)
    # Asked for by the flag alone, there may be more steps.
    assert (tmp_path / FOLDER / "model" / "encoder").is_dir()
    curve = described(again)["encoder_fit"]["curve"]
    assert curve[: len(before["encoder_fit"]["curve"])] == before["encoder_fit"]["curve"]


def test_the_fit_has_a_name_of_its_own(store, tmp_path):
    settings = configured(tmp_path, store)
    assert fitted_stage(settings, subject="03", minutes=1) == FOLDER
    assert system.results_folder(settings).name == "adapted-1min-test-gain-with-encoder"
    assert method_name(settings) == "GLFA, test-gain fitted to 1 min with encoder"
    assert "encoder" not in method_name(without_encoder(settings))
    said = r"--subject 03 --minutes 1 --method test-gain --encoder$"
    with pytest.raises(InputError, match=said):
        subject_alignment.validate_layer(settings, subject="03")
    other = config.overridden(settings, ["adapt.encoder.learning_rate=1e-3"])
    adapt.main(settings, subject="03", minutes=MINUTES)
    with pytest.raises(TrainingError, match=r"encoder\.learning_rate: 0\.001 \| 0\.003"):
        encoder_for(other, load_trained(other), subject="03")
    longer = settings.model_copy(update={"cotrain": config.Cotrain(steps=3)})
    with pytest.raises(InputError, match="fitted when stage 2 had 2 steps, now it has 3"):
        encoder_for(longer, load_trained(settings), subject="03")


def test_it_needs_clips_that_others_saw(store, tmp_path):
    settings = configured(tmp_path, store)
    for data in ("unlabelled", "unlabelled-test"):
        with pytest.raises(ConfigError, match=f"data: {data}, must be paired or left out with"):
            config.overridden(settings, [f"adapt.data={data}"])
    warp = config.overridden(settings, ["adapt.method=warp"])
    assert alignments.data_for_strangers(warp) == "paired"
    assert alignments.data_for_strangers(without_encoder(warp)) == "unlabelled"
    with pytest.raises(InputError, match=r"hold 4 clips .* to train the encoder 5 are needed"):
        adapt.main(settings, subject="03", minutes=8 / 60)
