"""Fitting the alignment to a new subject: it helps, from what it may see, and changes nothing else.

The displacement is known: the new subject's maps lie one pixel to the right.
"""

import dataclasses
import hashlib
import re
import shlex
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from glfa_jax import config, subject_alignment
from glfa_jax.alignments import align, protocol
from glfa_jax.convert.directory import read_config
from glfa_jax.data import pipeline
from glfa_jax.data.store import Store
from glfa_jax.errors import InputError, TrainingError
from glfa_jax.stages import adapt, clips_to_fit
from glfa_jax.subject_alignment import encoder_for, layer_for
from glfa_jax.trained.model import Model
from glfa_jax.trained.sampler import VideoSampler
from glfa_jax.training.checkpoints import latest_step, restore_params
from glfa_jax.training.logs import read_log
from tests.stages import tiny
from tests.stages.displaced import CLEAN, CLIPS, MASK, write_store
from tests.stages.variants import load_trained, settings_of, store_trained
from tests.stores import CLIP_SECONDS
from tests.stores import write_store as write_other

MINUTES = 1.0
COUNTS = tuple(CLIPS.items())
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
    layer = layer_for(settings, load_trained(settings), subject="03").params
    taps = np.abs(layer["weight"] + (np.arange(9) == 4)[:, None, None])
    inside = (taps / taps.sum(0))[:, 2:-2, 2:-2].mean((1, 2))
    assert inside.argmax() == 5  # the pixel to the right
    assert inside[5] > 0.5


def test_its_page_says_how_far_maps_moved_and_that_halves_were_not_fitted(fitted):
    folder = fitted[0].run_dir / "adapt" / "03-1min"
    about = read_config(folder / "model")
    assert about["others"] == ["01", "02"]
    report = about["report"]
    assert report["distance_after"] < 0.2 * report["distance_before"]
    assert report["displacement_pixels"] == pytest.approx(1, abs=0.3)
    with np.load(folder / "fit.npz") as archive:
        found = archive["shift"][2:-2, 2:-2].mean((0, 1))
    np.testing.assert_allclose(found, [0, 1], atol=0.3)  # the pixel to the right
    page = folder / "index.html"
    text = page.read_text()
    assert "This was not measured: the layer is trained in steps" in text
    page.unlink()
    adapt.main(fitted[0], subject="03", minutes=MINUTES)
    assert page.read_text() == text


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
    read, reading = [], protocol.read_tensors
    monkeypatch.setattr(
        protocol, "read_tensors", lambda folder: read.append(folder) or reading(folder)
    )
    model = Model(load_trained(settings), Mock(), {}, {})
    negative = jnp.zeros((tiny.WINDOW, tiny.SIDE, tiny.SIDE))
    encoders = {"03": encoder_for(settings, model.encoder, subject="03")}
    VideoSampler(model, settings, encoders=encoders, negative=negative)
    assert read == [settings.run_dir / "adapt" / "03-1min" / "model"]


def test_only_the_first_minutes_are_seen(fitted, displaced):
    """What comes after is not a number, and the loss would not be one."""
    clips = clips_to_fit.clips_of(displaced, subject="03", minutes=MINUTES)
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
        layer_for(each, load_trained(each), subject="03").params for each in (fitted[0], settings)
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


def test_another_fit_under_the_same_name_is_rejected(fitted, displaced):
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
def test_a_model_is_kept_where_going_on_is_rejected(fitted, displaced, changes, said):
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
        stored = layer_for(own, load_trained(own), subject="03").params
        trained = restore_params(tmp_path / "adapt" / "03-1min", step=steps)
        jax.tree.map(np.testing.assert_array_equal, stored, trained)


@pytest.mark.parametrize("steps", [59, 61])
def test_a_layer_of_another_length_than_is_asked_for_is_rejected(fitted, steps):
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
        subject_alignment.validate_layer(settings.model_copy(update={"adapt": other}), subject="03")
    subject_alignment.validate_layer(settings, subject="03")


def of_fourth(displaced: Store, path: Path, **changes: Any) -> Store:
    """A store of subject 04 alone, who is subject 03 and saw the clean clips the other way round,
    and before them one that nobody else saw.
    """
    maps = {split: displaced.fmri(split, range(n), subjects=["03"])[:, 0] for split, n in COUNTS}
    names = {split: list(displaced.attributes.clips[split]) for split, _ in COUNTS}
    order = [*reversed(range(CLEAN)), *range(CLEAN, len(names["train"]))]
    alone = np.full_like(maps["train"][:1], np.nan)
    maps["train"] = np.concatenate([alone, maps["train"][order]])
    names["train"] = ["alone.mp4", *(names["train"][i] for i in order)]
    shown = {split: np.zeros((len(names[split]), tiny.FRAMES, 8, 8, 3), np.uint8) for split in maps}
    given = {"identity": "new", "mask": displaced.mask, "names": names} | changes
    return write_other(path, videos=shown, maps={"04": maps}, **given)


def flagged(sets: list[str]) -> list[str]:
    return [word for one in sets for word in ("--set", one)]


def on_store(settings: config.Config, run_dir: Path, path: Path) -> config.Config:
    """The same run, that decodes subject 04 of a store."""
    protocol = {"test_store": path, "test_subjects": ("04",)}
    changes = {"run_dir": run_dir, "protocol": settings.protocol.model_copy(update=protocol)}
    return settings.model_copy(update=changes)


@pytest.mark.parametrize("per_subject", [False, True])
def test_a_subject_scanned_later_is_fitted_from_a_store_of_his_own(
    fitted, displaced, tmp_path, per_subject, capsys
):
    alignment = fitted[0].alignment.model_copy(update={"per_subject": per_subject})
    trained = fitted[0].model_copy(update={"alignment": alignment, "run_dir": tmp_path / "run"})
    store_trained(trained)
    kept = config.dump(trained)
    (trained.run_dir / "config.yaml").write_text(kept)
    store = of_fourth(displaced, tmp_path / "new.zarr")
    settings = on_store(trained, trained.run_dir, store.path)
    with pytest.raises(InputError, match="no layer was fitted to 1 minutes of subject 04") as error:
        subject_alignment.validate_layer(settings, subject="04")
    command = str(error.value).partition("first run ")[2]
    words = shlex.split(command)
    sets = [word for flag, word in pairwise(words) if flag == "--set"]
    again = config.load(trained.run_dir / "config.yaml", sets)
    assert words[-4:] == ["--subject", "04", "--minutes", "1"]
    assert again.protocol.model_copy(update={"name": None}) == settings.protocol
    adapt.main(settings, subject="04", minutes=MINUTES)
    said = capsys.readouterr().out
    assert f"to {CLEAN - 1} clips that 01 or 02 saw as well" in said
    assert said.strip().endswith(f"--set evaluation.adapted_minutes=1 {shlex.join(flagged(sets))}")
    assert (trained.run_dir / "config.yaml").read_text() == kept
    subject_alignment.validate_layer(settings, subject="04")
    more = MINUTES + 2 * CLIP_SECONDS / 60  # the second of them is not a number
    with pytest.raises(TrainingError, match="is nan at step"):
        adapt.main(settings, subject="04", minutes=more)


def test_it_is_the_layer_that_one_store_of_all_would_give(fitted, displaced, tmp_path):
    """Where the same clips are seen in the same order."""
    trained = fitted[0]
    store_trained(trained.model_copy(update={"run_dir": tmp_path / "run"}))
    names = {split: list(displaced.attributes.clips[split]) for split, _ in COUNTS}
    maps = {split: displaced.fmri(split, range(n), subjects=["03"])[:, 0] for split, n in COUNTS}
    shown = {split: np.zeros((n, tiny.FRAMES, 8, 8, 3), np.uint8) for split, n in COUNTS}
    given = {"identity": "new", "mask": displaced.mask, "names": names}
    store = write_other(tmp_path / "new.zarr", videos=shown, maps={"04": maps}, **given)
    settings = on_store(trained, tmp_path / "run", store.path)
    adapt.main(settings, subject="04", minutes=MINUTES)
    assert (tmp_path / "run" / "adapt" / "on-new" / "04-1min" / "model").is_dir()
    ours, theirs = (
        layer_for(each, load_trained(each), subject=subject).params
        for each, subject in ((settings, "04"), (trained, "03"))
    )
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    shutil.rmtree(store.path)
    other = write_other(
        store.path, videos=shown, maps={"04": maps}, **given | {"identity": "newer"}
    )
    for use in (
        lambda: adapt.run(settings, displaced, subject="04", minutes=MINUTES),
        lambda: layer_for(settings, load_trained(settings), subject="04"),
    ):
        with pytest.raises(InputError, match=f"fitted to other data than are in {other.path}"):
            use()


def test_the_same_showings_of_the_same_clips_are_paired(displaced, tmp_path):
    names = list(displaced.attributes.clips["train"])
    theirs = of_fourth(displaced, tmp_path / "theirs.zarr")
    shared = clips_to_fit.shared_clips(displaced, theirs, clips=np.arange(4), others=("01", "02"))
    np.testing.assert_array_equal(shared.own, [1, 2, 3])
    np.testing.assert_array_equal(shared.theirs, [29, 28, 27])
    twice = dataclasses.replace(
        theirs,
        attributes=dataclasses.replace(
            theirs.attributes,
            clips={"train": [names[7], names[7], names[3]]},
            captions={"train": [names[7], names[7], names[3]]},
        ),
    )
    shared = clips_to_fit.shared_clips(displaced, twice, clips=np.arange(3), others=("01", "02"))
    np.testing.assert_array_equal(shared.own, [0, 2])  # nobody else saw that clip again
    np.testing.assert_array_equal(shared.theirs, [7, 3])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"captions": {"train": ["x"] * 61}}, r"clip train29.mp4 is 'x', but 'train29.mp4' in"),
        ({"lag_seconds": 5.0}, "has lag_seconds of 5 s, but .* of 4 s; windows must show the same"),
        ({"repetition_time": 2.0}, "has repetition_time of 2 s, but "),
    ],
)
def test_a_store_that_was_not_prepared_alike_is_rejected(displaced, tmp_path, change, said):
    store = of_fourth(displaced, tmp_path / "new.zarr")
    changed = dataclasses.replace(store, attributes=dataclasses.replace(store.attributes, **change))
    with pytest.raises(InputError, match=said):
        clips_to_fit.shared_clips(displaced, changed, clips=np.arange(4), others=("01",))


def test_a_store_of_another_cortex_is_rejected(displaced, tmp_path):
    store = of_fourth(displaced, tmp_path / "new.zarr", mask=~displaced.mask)
    with pytest.raises(InputError, match="its maps show another part of the cortex than those of"):
        clips_to_fit.shared_clips(displaced, store, clips=np.arange(4), others=("01",))


@pytest.mark.parametrize(
    ("subject", "said"),
    [
        ("01", "--subject: 01 of new.zarr has the name of a subject that was trained on"),
        ("03", "--subject: 03 is none of the subjects to fit to: 04"),
    ],
)
def test_who_cannot_be_fitted_from_another_store(fitted, subject, said):
    settings = on_store(fitted[0], fitted[0].run_dir, Path("new.zarr"))
    with pytest.raises(InputError, match=said):
        adapt.validate_new_subject(settings, subject)


@pytest.mark.parametrize("minutes", [0.0, -1.0, 0.01, 2.1, float("nan"), float("inf")])
def test_minutes_that_there_are_not(displaced, minutes):
    with pytest.raises(InputError, match=r"--minutes: .* to 2, all the training clips of subject"):
        clips_to_fit.clips_of(displaced, subject="03", minutes=minutes)


def test_all_minutes_there_are(displaced):
    assert len(clips_to_fit.clips_of(displaced, subject="03", minutes=2.0)) == 60
    assert len(clips_to_fit.clips_of(displaced, subject="03", minutes=0.1)) == 3


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
        adapt.validate_new_subject(settings, subject)


def test_a_layer_not_fitted_yet_is_named_with_its_command(fitted):
    settings = fitted[0].model_copy(update={"evaluation": config.Evaluation(adapted_minutes=2)})
    with pytest.raises(InputError, match=r"train\.adapt --config .* --subject 03 --minutes 2$"):
        layer_for(settings, load_trained(settings), subject="03")
