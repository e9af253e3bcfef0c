"""Public studies from their files to the store, against plain computations of their own."""

from pathlib import Path

import numpy as np
import pytest

from glfa_jax import config
from glfa_jax.data import flatmap, surfaces
from glfa_jax.data.layouts import wen2018
from glfa_jax.preparation import prepare
from tests.data.public_studies import (
    BOLD_VOLUMES,
    wen_slopes,
    write_bold_moments,
    write_cortex,
    write_hcp7t,
    write_wen2018,
)
from tests.data.test_prepare_layouts import drawn, without_drift, z_scored


@pytest.fixture
def few_vertices(monkeypatch):
    """The flat map of the scans of tests."""
    monkeypatch.setattr(flatmap, "of", lambda _: drawn())


def settings(layout: str, root: Path, **changes) -> config.Data:
    values = {
        "layout": layout,
        "root": root,
        "store": root.parent / "store.zarr",
        "space": "fsLR",
        "map_size": 16,
        "frames": 2,
        "resolution": (16, 16),
        "workers": 1,
    }
    return config.Data(**{**values, **changes})


def maps_of(series: np.ndarray) -> np.ndarray:
    cortex = drawn()
    maps = cortex.to_map(np.nan_to_num(series).astype(np.float64))
    return np.where(cortex.mask, z_scored(maps, len(maps)), 0)


@pytest.mark.usefixtures("few_vertices")
def test_bold_moments(tmp_path):
    series = write_bold_moments(tmp_path / "ds005165")
    maps = {run: maps_of(values) for run, values in series.items()}
    assert [len(each) for each in maps.values()] == 2 * [238] + 2 * [268]
    data = settings("bold_moments", tmp_path / "ds005165", subjects=("01",), window=3)
    store = prepare(data, progress=False)
    about = store.attributes
    assert about.clips["train"] == [f"train/{clip:04d}.mp4" for clip in (3, 1, 2, 2, 3, 1)]
    assert about.clips["test"] == ["test/1001.mp4", "test/1002.mp4"]
    assert about.captions["test"][1] == "Clip 1002 is described in sentence 1"
    assert (about.repetition_time, about.clip_seconds, about.repeats) == (1.75, 3.0, {"01": 2})
    assert all(run["volumes"] == BOLD_VOLUMES[run["split"]] for run in about.runs)

    # Onsets of the first, second and third clip: 7, 15.5 and 19.75 s. Four seconds later the
    # nearest volumes, those of 10.5, 19.25 and 24.5 s.
    firsts = (6, 11, 14)
    runs = [("train", "02", 1), ("train", "03", 10)]
    expected = [maps[run][first : first + 3] for run in runs for first in firsts]
    fmri = store.fmri("train", range(6), subjects=["01"])[:, 0]
    np.testing.assert_allclose(fmri, np.stack(expected), atol=3e-3)
    one, other = maps["test", "02", 1], maps["test", "04", 3]
    expected = [(one[6:9] + other[11:14]) / 2, (one[11:14] + other[6:9]) / 2]
    fmri = store.fmri("test", range(2), subjects=["01"])[:, 0]
    np.testing.assert_allclose(fmri, np.stack(expected), atol=3e-3)


@pytest.mark.usefixtures("few_vertices")
def test_hcp7t(tmp_path):
    series = write_hcp7t(tmp_path / "HCP")
    data = settings(
        *("hcp7t", tmp_path / "HCP"),
        subjects=("100610",),
        captions=tmp_path / "HCP" / "captions.tsv",
        window=5,
        clip_seconds=10,
    )
    store = prepare(data, progress=False)
    about = store.attributes
    assert about.clips["train"][:2] == ["MOVIE1/020", "MOVIE1/030"]
    assert about.clips["test"] == [f"validation/{second:03d}" for second in range(0, 71, 10)]
    assert (about.repetition_time, about.clip_seconds) == (1.0, 10.0)
    assert about.repeats == {"100610": 4}
    assert store.present("train", subjects=["100610"]).all()
    assert not about.notes

    begins = {"MOVIE1": 818, "MOVIE2": 815, "MOVIE3": 812, "MOVIE4": 798}
    before = {name: maps_of(values[: begins[name]]) for name, values in series.items()}
    behind = {name: maps_of(values[begins[name] :]) for name, values in series.items()}
    for name in ("MOVIE1/020", "MOVIE1/784", "MOVIE3/779", "MOVIE4/762"):
        place = about.clips["train"].index(name)
        first = int(name[-3:]) + 4
        fmri = store.fmri("train", [place], subjects=["100610"])[0, 0]
        np.testing.assert_allclose(fmri, before[name[:6]][first : first + 5], atol=3e-3)
    for place in (0, 7):
        average = np.mean([each[10 * place + 4 :][:5] for each in behind.values()], axis=0)
        fmri = store.fmri("test", [place], subjects=["100610"])[0, 0]
        np.testing.assert_allclose(fmri, average, atol=3e-3)
    # Films are a level brighter every four seconds; the test is the end of the first film.
    for split, name, begin in (("train", "MOVIE2/267", 267), ("test", "validation/070", 888)):
        video = store.video(split, [about.clips[split].index(name)])[0].mean(axis=(1, 2, 3))
        np.testing.assert_allclose(video, [(begin + 2.5) // 4, (begin + 7.5) // 4], atol=3)


def test_wen2018_from_volumes(tmp_path, monkeypatch):
    films = [wen2018._Film("seg1", "train", 1), wen2018._Film("test1", "test", 10)]
    monkeypatch.setattr(wen2018, "FILMS", films)
    cortex = write_cortex(tmp_path / "cortex")
    write_wen2018(tmp_path / "wen", {"seg1": [1], "test1": [2, 9]})
    data = settings(
        *("wen2018", tmp_path / "wen"),
        subjects=("1",),
        space="MNI152NLin6Asym",
        captions=tmp_path / "wen" / "captions.tsv",
        surfaces=cortex.surfaces,
        region=cortex.region,
        window=3,
    )
    store = prepare(data, progress=False)
    lacks = "not there: test1 (repeats 1, 3 to 8 and 10) of subject 1"
    assert store.attributes.notes == [lacks]
    assert store.attributes.provenance["settings"]["clean"]["polynomial"] == 4

    flat = flatmap.build(surfaces.load(data), map_size=16)
    along = np.concatenate([np.ones((len(cortex.middle), 1)), cortex.middle], axis=1)
    for split, repeats in (("train", [1]), ("test", [2, 9])):
        maps = [
            z_scored(flat.to_map(without_drift(wen_slopes(245, seed)[1:] @ along.T)), 240)
            for seed in repeats
        ]
        average = np.where(flat.mask, np.mean(maps, axis=0), 0)
        chosen = [0, 17, 239]
        fmri = store.fmri(split, chosen, subjects=["1"])[:, 0]
        expected = np.stack([average[clip + 2 : clip + 5] for clip in chosen])
        np.testing.assert_allclose(fmri, expected, atol=3e-3)
