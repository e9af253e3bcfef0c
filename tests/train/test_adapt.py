"""Fitting the alignment to a new subject: it helps, from what it may see, and changes nothing else.

The displacement is known: the new subject's maps lie one pixel to the right.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from glfa_jax import config, subject_alignment
from glfa_jax.convert import pretrained
from glfa_jax.data import pipeline
from glfa_jax.decoder import Decoder, Generator
from glfa_jax.errors import InputError, TrainingError
from glfa_jax.subject_alignment import align, encoder_for, layer_for
from glfa_jax.training.checkpoints import latest_step, restore_params
from glfa_jax.training.logs import read_log
from tests.train import tiny
from tests.train.displaced import CLEAN, MASK, write_store
from tests.train.variants import load_trained, settings_of, store_trained
from train import adapt

MINUTES = 1.0
ADAPTED = {"evaluation": {"adapted_minutes": MINUTES}}


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def distance(settings: config.Config, store) -> float:
    """Mean squared, on test clips, of the new subject's aligned maps from the others' mean."""
    encoder = load_trained(settings)
    subjects = store.attributes.subjects
    fmri = store.fmri("test", range(store.num_clips("test")), subjects=subjects)
    aligned = np.stack(
        [
            align(encoder_for(settings, encoder, subject=subject), fmri[:, i])
            for i, subject in enumerate(subjects)
        ]
    )
    return float(np.square(aligned[2] - aligned[:2].mean(0))[..., MASK].mean())


@pytest.fixture(scope="module")
def displaced(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("displaced") / "store.zarr")


@pytest.fixture(scope="module")
def fitted(displaced, tmp_path_factory):
    """Settings, and what stage 2 had left before."""
    run_dir = tmp_path_factory.mktemp("adapt")
    settings = settings_of(run_dir, displaced, **ADAPTED)
    store_trained(settings)
    before = contents(run_dir / "cotrain")
    adapt.main(settings, subject="03", minutes=MINUTES)
    return settings, before


def test_held_out_maps_come_near_the_others_as_the_displacement_is_found(fitted, displaced):
    settings, _ = fitted
    zero_shot = settings.model_copy(update={"evaluation": config.Evaluation()})
    assert distance(settings, displaced) < 0.2 * distance(zero_shot, displaced)
    layer = layer_for(settings, load_trained(settings), subject="03")
    taps = np.abs(layer["weight"] + (np.arange(9) == 4)[:, None, None])
    inside = (taps / taps.sum(0))[:, 2:-2, 2:-2].mean((1, 2))
    assert inside.argmax() == 5  # the pixel to the right
    assert inside[5] > 0.5


def test_nothing_else_is_touched(fitted, displaced):
    settings, before = fitted
    assert contents(settings.run_dir / "cotrain") == before
    trained = load_trained(settings)
    flat = flatten_dict(trained.variables["params"], sep="/")
    ours = encoder_for(settings, trained, subject="03").variables["params"]
    changed = {name for name, x in flatten_dict(ours, sep="/").items() if x is not flat[name]}
    assert changed == {"func_align_layer/weight", "func_align_layer/global_align_weight"}
    known = encoder_for(settings, trained, subject="01").variables["params"]
    assert all(x is flat[name] for name, x in flatten_dict(known, sep="/").items())


def test_a_fitted_layer_is_read_once_to_decode_with_it(fitted, monkeypatch):
    settings, _ = fitted
    read, reading = [], subject_alignment.read_tensors
    monkeypatch.setattr(
        subject_alignment, "read_tensors", lambda folder: read.append(folder) or reading(folder)
    )
    small = pretrained.Pretrained(nn.Dense(1), {})
    parts: Any = (small, small, None)
    negative = jnp.zeros((tiny.WINDOW, tiny.SIDE, tiny.SIDE))
    Generator(Decoder(load_trained(settings), *parts), settings, subjects=["03"], negative=negative)
    assert read == [settings.run_dir / "adapt" / "03-1min" / "model"]


def test_only_the_first_minutes_are_seen(fitted, displaced):
    """What comes after is not a number, and the loss would not be one."""
    clips = adapt.clips_of(displaced, subject="03", minutes=MINUTES)
    np.testing.assert_array_equal(clips, np.arange(CLEAN))
    stream = pipeline.windows(
        displaced, subjects=("01", "03"), clips=clips[:7], batch_size=4, seed=0
    )
    seen = np.concatenate([next(stream)["fmri"] for _ in range(8)])
    kept = displaced.fmri("train", clips[:7], subjects=("01", "03"))
    assert {x.tobytes() for x in seen} == {x.tobytes() for x in kept.astype(np.float32)}
    later = fitted[0].model_copy(update={"run_dir": fitted[0].run_dir / "later"})
    store_trained(later)
    with pytest.raises(TrainingError, match="is nan at step"):
        adapt.run(later, displaced, subject="03", minutes=MINUTES + 0.5)


def test_interrupted_and_resumed_it_is_the_same_layer(fitted, displaced, tmp_path, monkeypatch):
    settings = fitted[0].model_copy(update={"run_dir": tmp_path})
    store_trained(settings)
    take, taken = pipeline.Stream.__next__, []

    def take_some(self):
        taken.append(1)
        if len(taken) > 30:
            raise KeyboardInterrupt
        return take(self)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.Stream, "__next__", take_some)
        with pytest.raises(KeyboardInterrupt):
            adapt.run(settings, displaced, subject="03", minutes=MINUTES)
    folder = tmp_path / "adapt" / "03-1min"
    assert latest_step(folder) == 20
    assert not (folder / "model").exists()
    adapt.run(settings, displaced, subject="03", minutes=MINUTES)
    whole, again = (
        layer_for(each, load_trained(each), subject="03") for each in (fitted[0], settings)
    )
    jax.tree.map(np.testing.assert_array_equal, whole, again)
    assert read_log(folder)[-1]["step"] == 60


def test_the_runs_configuration_is_read_once_and_kept_where_nothing_can_be_fitted(
    fitted, monkeypatch
):
    settings, read, load = fitted[0], [], config.load
    kept = settings.run_dir / "config.yaml"
    before = kept.read_text()
    monkeypatch.setattr(
        config, "load", lambda path, **options: read.append(path) or load(path, **options)
    )
    other = settings.model_copy(update={"name": "other"})
    with pytest.raises(InputError, match="01 was trained on"):
        adapt.main(other, subject="01", minutes=MINUTES)
    assert kept.read_text() == before
    read.clear()
    adapt.main(settings, subject="03", minutes=MINUTES)
    assert read.count(kept) == 1


def test_what_is_fitted_already_is_not_fitted_again(fitted, displaced, capsys):
    before = contents(fitted[0].run_dir / "adapt")
    adapt.run(fitted[0], displaced, subject="03", minutes=MINUTES)
    assert "finished already" in capsys.readouterr().out
    assert contents(fitted[0].run_dir / "adapt") == before


def test_another_fit_under_the_same_name_is_refused(fitted, displaced):
    settings = fitted[0]
    other = settings.model_copy(
        update={"adapt": settings.adapt.model_copy(update={"alignment_scale": 3.0})}
    )
    with pytest.raises(TrainingError, match=r"alignment_scale: 3.0 \| 1.0"):
        adapt.run(other, displaced, subject="03", minutes=MINUTES)
    with pytest.raises(TrainingError, match=r"alignment_scale: 3.0 \| 1.0"):
        layer_for(other, load_trained(other), subject="03")
    longer = settings.model_copy(update={"cotrain": config.Cotrain(steps=3)})
    for use in (
        lambda: adapt.run(longer, displaced, subject="03", minutes=MINUTES),
        lambda: layer_for(longer, load_trained(longer), subject="03"),
    ):
        with pytest.raises(InputError, match="fitted when stage 2 had 2 steps, now it has 3"):
            use()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"adapt": {"steps": 40}}, "has been trained for 60 steps already, more than the 40"),
        ({"seed": 3, "adapt": {"steps": 80}}, r"belongs to another run .*seed: 3 \| 0"),
    ],
)
def test_a_model_is_kept_where_going_on_is_refused(fitted, displaced, changes, said):
    settings = fitted[0]
    changes = changes | {"adapt": settings.adapt.model_copy(update=changes["adapt"])}
    model = settings.run_dir / "adapt" / "03-1min" / "model"
    before = contents(model)
    assert before
    with pytest.raises(TrainingError, match=said):
        adapt.run(settings.model_copy(update=changes), displaced, subject="03", minutes=MINUTES)
    assert contents(model) == before


def test_a_model_of_fewer_steps_makes_room(fitted, displaced, tmp_path):
    settings = fitted[0].model_copy(update={"run_dir": tmp_path})
    store_trained(settings)
    for steps in (1, 2):
        few = settings.adapt.model_copy(update={"steps": steps})
        own = settings.model_copy(update={"adapt": few})
        adapt.run(own, displaced, subject="03", minutes=MINUTES)
        stored = layer_for(own, load_trained(own), subject="03")
        trained = restore_params(tmp_path / "adapt" / "03-1min", step=steps)
        jax.tree.map(np.testing.assert_array_equal, stored, trained)


@pytest.mark.parametrize("steps", [59, 61])
def test_a_layer_of_another_length_than_is_asked_for_is_refused(fitted, steps):
    """Else the number asked for would be recorded with results of the other."""
    settings = fitted[0]
    other = settings.adapt.model_copy(update={"steps": steps})
    folder = settings.run_dir / "adapt" / "03-1min"
    said = (
        f"{folder / 'model'}: was fitted in 60 steps, but adapt.steps is {steps}; remove {folder} "
        f"and run python -m train.adapt --config {settings.run_dir / 'config.yaml'} --subject 03 "
        f"--minutes 1 --set adapt.steps={steps}"
    )
    with pytest.raises(InputError, match=f"^{re.escape(said)}$"):
        subject_alignment.require_layer(settings.model_copy(update={"adapt": other}), subject="03")
    subject_alignment.require_layer(settings, subject="03")


@pytest.mark.parametrize("minutes", [0.0, -1.0, 0.01, 2.1, float("nan"), float("inf")])
def test_minutes_that_there_are_not(displaced, minutes):
    with pytest.raises(InputError, match=r"--minutes: .* to 2, all the training clips of subject"):
        adapt.clips_of(displaced, subject="03", minutes=minutes)


def test_all_minutes_there_are(displaced):
    assert len(adapt.clips_of(displaced, subject="03", minutes=2.0)) == 60
    assert len(adapt.clips_of(displaced, subject="03", minutes=0.1)) == 3


@pytest.mark.parametrize(
    ("subject", "sections", "message"),
    [
        ("01", {}, "--subject: 01 was trained on"),
        ("04", {}, "--subject: 04 is none of the subjects to fit to: 03"),
        ("03", {"cotrain": {"steps": 9}}, "stage 2 is not finished; run python -m train.cotrain"),
        (
            "03",
            {"alignment": {"global_part": False, "local_part": False}},
            "alignment is off in this run",
        ),
    ],
)
def test_what_cannot_be_fitted(fitted, displaced, subject, sections, message):
    settings = settings_of(fitted[0].run_dir, displaced, **sections)
    with pytest.raises(InputError, match=re.escape(message)):
        adapt.refuse_unfit(settings, subject)


def test_a_layer_not_fitted_yet_is_named_with_its_command(fitted):
    settings = fitted[0].model_copy(update={"evaluation": config.Evaluation(adapted_minutes=2)})
    with pytest.raises(InputError, match=r"train\.adapt --config .* --subject 03 --minutes 2$"):
        layer_for(settings, load_trained(settings), subject="03")
