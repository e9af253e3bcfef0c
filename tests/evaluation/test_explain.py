"""`eval.explain` on a tiny finished run: what it leaves, that it goes on, and what it rejects."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glfa_jax import config
from glfa_jax.data import flatmap, surfaces
from glfa_jax.data.gifti import SIDES, read_series
from glfa_jax.data.store import Store
from glfa_jax.errors import InputError, TrainingError
from glfa_jax.evaluation import explain
from glfa_jax.evaluation.contributions import intervals
from glfa_jax.evaluation.decoding import HeldOut, open_test
from glfa_jax.evaluation.explaining import Explaining, chosen_scores
from glfa_jax.metrics import statistics
from glfa_jax.report import contributions, page
from glfa_jax.report.inputs import ReportError
from tests import stores
from tests.data.meshes import write_labels
from tests.evaluation.tiny_run import CLIPS, SUBJECTS, finished
from tests.report import fake
from tests.report.test_page import parse

OPTIONS = ("explain.patches=10", "explain.steps=3", "explain.orders=19")
OPTIONS += ("evaluation.test_maps=averaged", "evaluation.batch_size=3")
LEVEL = 0.5  # of all maps of the right hemisphere


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> config.Config:
    """A run whose maps are drawn on the flat map of fsaverage5, those of the right hemisphere all
    alike."""
    folder = tmp_path_factory.mktemp("explained")
    settings = finished(folder)
    flat = flatmap.build(surfaces.fsaverage5(), map_size=settings.data.map_size)
    store, rng = Store.open(settings.data.store), np.random.default_rng(0)
    videos: Any = {split: store.video(split, range(CLIPS[split])) for split in CLIPS}
    size = (settings.data.window, *flat.mask.shape)
    right = np.arange(flat.map_size) >= flat.map_size / 2
    maps: Any = {
        subject: {
            split: np.where(flat.mask, np.where(right, LEVEL, rng.normal(size=(n, *size))), 0)
            for split, n in CLIPS.items()
        }
        for subject in SUBJECTS
    }
    shutil.rmtree(settings.data.store)
    stores.write_store(
        settings.data.store, identity="trained", mask=flat.mask, videos=videos, maps=maps
    )
    return config.overridden(settings, OPTIONS)


@pytest.fixture(scope="module")
def place(settings) -> Path:
    explain.main(settings)
    return settings.run_dir / "explain"


@pytest.fixture(scope="module")
def opened(settings) -> HeldOut:
    return open_test(settings)


@pytest.fixture(scope="module")
def numbers(place) -> dict:
    return json.loads((place / "contributions.json").read_text())


@pytest.fixture(scope="module")
def arrays(place) -> dict[str, np.ndarray]:
    with np.load(place / "contributions.npz") as held:
        return dict(held)


def test_every_area_has_a_contribution_of_every_score(numbers, arrays, settings):
    names = numbers["areas"]["names"]
    assert sum(numbers["areas"]["shares"]) == pytest.approx(1)
    assert [one["score"] for one in numbers["results"]] == ["condition", "image", "caption"]
    for k, one in enumerate(numbers["results"]):
        assert (one["subject"], one["clips"]) == ("03", CLIPS["test"])
        for by in ("gradient", "occlusion"):
            low, mean, high = (np.array(one[by][key]) for key in ("low", "mean", "high"))
            assert mean.shape == (len(names),)
            assert (low <= mean + 1e-9).all()
            assert (mean <= high + 1e-9).all()
            assert len(one[by]["deletion"]["highest"]) == settings.explain.steps + 1
        np.testing.assert_allclose(arrays["occlusion"][0, k], one["occlusion"]["mean"], rtol=1e-5)
        summed = [arrays["gradient"][0, k][arrays["areas"] == i].sum() for i in range(len(names))]
        np.testing.assert_allclose(summed, one["gradient"]["mean"], rtol=1e-4, atol=1e-7)
        assert one["nothing"]["mean"] == pytest.approx(0, abs=1e-5)
    assert numbers["results"][0]["full"]["mean"] == pytest.approx(1, rel=1e-5)


def test_cortex_that_is_as_on_average_contributes_nothing(numbers, arrays):
    for one in numbers["results"]:
        for by in ("gradient", "occlusion"):
            mean = dict(zip(numbers["areas"]["names"], one[by]["mean"], strict=True))
            assert all(x == 0 for name, x in mean.items() if name.startswith("right"))
            assert all(x != 0 for name, x in mean.items() if name.startswith("left"))
    right = np.arange(arrays["mask"].shape[1]) >= arrays["mask"].shape[1] / 2
    assert not arrays["gradient"][..., right].any()
    assert not arrays["gradient"][..., ~arrays["mask"]].any()


def test_maps_lie_on_the_surface(place, arrays):
    drawn = contributions.read(place)
    for side in SIDES:
        path = place / f"sub-03_hemi-{side[0].upper()}_space-fsaverage5_contributions.func.gii"
        series = read_series(path, side=side)
        assert series.shape == (6, 10242)
        mesh = getattr(surfaces.fsaverage5(), side)
        assert not series[:, ~mesh.region].any()
        assert series.any() == (side == "left")
    assert drawn.maps["03", "image", "gradient"].shape == arrays["mask"].shape


@pytest.mark.parametrize("given", [False, True])
def test_maps_of_volumes_are_named_by_the_mesh_they_are_sampled_to(
    settings, opened, place, tmp_path, given
):
    changes = {"space": "MNI152NLin6Asym", "surfaces": {"flat": ["l", "r"]} if given else None}
    data = config.Data(**{**settings.data.model_dump(), **changes})
    own = settings.model_copy(update={"run_dir": tmp_path, "data": data})
    explaining = Explaining(replace(opened, settings=own), (), explain.areas_of(settings, opened))
    (tmp_path / "explain").mkdir()
    explain._write_surfaces(explaining, contributions.read(place), flatmap.of(settings.data))
    space = "" if given else "_space-fsaverage5"
    assert {path.name for path in (tmp_path / "explain").iterdir()} == {
        f"sub-03_hemi-{side}{space}_contributions.func.gii" for side in "LR"
    }


def test_what_is_measured_is_not_measured_again_and_what_is_missing_is(settings, place):
    before = {path: path.read_bytes() for path in place.glob("*.*")}
    parts = place / "parts" / "03"
    assert {path.name for path in parts.iterdir()} == {
        f"{kind}-0000{first}.npz" for kind in ("maps", "deletion") for first in (0, 3)
    }
    (parts / "maps-00003.npz").unlink()
    (parts / "deletion-00000.npz").unlink()
    kept = (parts / "maps-00000.npz").stat().st_mtime_ns
    explain.main(settings)
    assert (parts / "maps-00000.npz").stat().st_mtime_ns == kept
    assert {path: path.read_bytes() for path in place.glob("*.*")} == before


def test_what_is_damaged_or_of_other_settings_is_a_sentence(settings, opened, place):
    with pytest.raises(InputError, match=r"explain\.steps: 4 \| 3; remove the folder to make it"):
        explain.main(config.overridden(settings, ["explain.steps=4"]))
    part = place / "parts" / "03" / "maps-00000.npz"
    kept = part.read_bytes()
    explaining = Explaining(opened, chosen_scores(settings), explain.areas_of(settings, opened))
    assert explaining.maps("03")["full"].shape == (CLIPS["test"], 3)
    for wrong in (kept[:100], (place / "contributions.npz").read_bytes()):
        part.write_bytes(wrong)
        with pytest.raises(InputError, match=r"maps-00000\.npz: .*; remove it and run"):
            explaining.maps("03")
    part.write_bytes(kept)


def test_the_pages_show_the_maps_where_there_are_some(place, tmp_path):
    text = (place / "index.html").read_text()
    assert text.count("<svg") == 3
    assert "1 with the whole cortex (95 % 1 to 1 over 4 clips), 0 with none of it" in text
    parse(text)
    run = fake.make(tmp_path / "run")
    assert "Which cortex decides" not in page.write(run).read_text()
    shutil.copytree(place, run / "explain")
    # Of a model that was trained further since, maps are none of the run's.
    assert "Which cortex decides" not in page.write(run).read_text()
    steps = config.load(run / "config.yaml").cotrain.steps
    path = run / "explain" / "contributions.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cotrain_steps": steps}))
    shown = page.write(run).read_text()
    parse(shown)
    assert "Which cortex decides" in shown
    assert 'href="#cortex"' in shown
    path.write_text(json.dumps(json.loads(path.read_text()) | {"results": []}))
    with pytest.raises(ReportError, match="is of other subjects or scores than"):
        page.write(run)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (["explain.scores=[beauty]"], r"explain\.scores\.0: Input should be 'condition'"),
        (["explain.orders=3"], r"explain\.orders: .* greater than or equal to 19"),
        (["explain.labels=[a, b, c]"], r"explain\.labels: must be one or two files, got 3"),
        (["cotrain.steps=9"], "stage 2 is not finished"),
    ],
)
def test_what_cannot_be_explained_is_a_sentence(settings, changes, sentence):
    with pytest.raises((InputError, TrainingError), match=sentence):
        explain.main(config.overridden(settings, changes))


def test_areas_are_those_that_are_named_or_squares(settings, opened, tmp_path):
    """Of two halves of the cortex, one of which lies in no area."""
    assert explain.areas_of(settings, opened).source.startswith("squares of ")
    files = [
        write_labels(tmp_path / f"{side}.label.gii", np.full(10242, key), {0: "???", 1: "V1"}, side)
        for side, key in (("left", 1), ("right", 0))
    ]
    labels = config.overridden(settings, [f"explain.labels={[str(path) for path in files]}"])
    areas = explain.areas_of(labels, opened)
    assert sorted(areas.names) == ["V1", "no area"]
    files[0].unlink()
    with pytest.raises(InputError, match=r"left\.label\.gii: no such file"):
        explain.areas_of(labels, opened)
    other = labels.model_copy(update={"data": labels.data.model_copy(update={"map_size": 48})})
    with pytest.raises(InputError, match=r"explain\.labels: .* was drawn on another flat map"):
        explain.areas_of(other, opened)


def test_without_a_trained_head_only_the_condition_and_the_video_are_asked_for(settings):
    headless = settings.model_copy(update={"without": ("contrast",)})
    assert chosen_scores(headless) == ("condition",)
    asked = config.overridden(settings, ["explain.scores=[image]"])
    with pytest.raises(InputError, match=r"explain\.scores: image needs the contrastive head"):
        chosen_scores(asked.model_copy(update={"without": ("contrast",)}))


def test_intervals_are_those_of_the_bootstrap():
    values = np.random.default_rng(0).normal(size=(40, 3))
    found = intervals(values, seed=0)
    for i in range(3):
        single = statistics.bootstrap_interval(values[:, i], seed=1)
        assert found["mean"][i] == pytest.approx(single.estimate)
        assert found["low"][i] == pytest.approx(single.low, abs=0.03)
        assert found["high"][i] == pytest.approx(single.high, abs=0.03)
