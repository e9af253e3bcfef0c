"""Which reader is taken; and the page on new layouts, whose example must run."""

import re
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import h5py
import numpy as np
import pytest

from glfa_jax import config
from glfa_jax.data import DataError, flatmap
from glfa_jax.data.layouts import LAYOUTS, Problems, Study, fudan, reading
from glfa_jax.data.preparing import prepare
from glfa_jax.data.video import write_mp4
from tests.data.scans import MESH
from tests.data.test_prepare_layouts import drawn

ROOT = Path(__file__).parents[3]
NOTHING = Study((), {}, {}, ())


def test_every_layout_of_the_page_is_registered():
    page = (ROOT / "docs" / "layouts.md").read_text()
    named = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert {"bids", "fudan", "wen2018"} <= named <= set(LAYOUTS)


def test_a_layout_that_there_is_not_is_rejected_with_those_that_there_are(tmp_path):
    data = config.Data(layout="bdis", root=tmp_path, store=tmp_path / "s", subjects=("1",))
    known = ", ".join(sorted(LAYOUTS))
    said = f"^data.layout: 'bdis' is no layout, must be one of {known}$"
    for task in (lambda: reading.read_study(data, Problems(skip=True)), lambda: prepare(data)):
        with pytest.raises(DataError, match=said):
            task()


def test_the_layout_decides(tmp_path):
    for layout in LAYOUTS.values():
        data = config.Data(layout=layout.name, root=tmp_path, store=tmp_path / "s", subjects=("1",))
        reader = Mock(return_value=NOTHING)
        with LAYOUTS.temporarily(replace(layout, read=reader)):
            problems = Problems(skip=True)
            assert reading.read_study(data, problems) is NOTHING
            reader.assert_called_once_with(data, problems)
        gone = data.model_copy(update={"root": tmp_path / "gone"})
        with pytest.raises(DataError, match="gone: no such study folder"):
            reading.read_study(gone, Problems(skip=True))


@pytest.mark.parametrize("option", [{"split": {"test": "run-1"}}, {"films": {}}])
def test_runs_are_divided_where_the_layout_does_not_know_them(tmp_path, option):
    data = config.of(
        {"layout": "fudan", "root": tmp_path, "store": tmp_path / "s", "subjects": ["1"], **option},
        schema=config.Data,
    )
    [key] = option
    said = f"^data.{key}: must be left out for layout fudan, whose runs and clips are known; it is "
    with pytest.raises(DataError, match=f"{said}for bids$"):
        reading.read_study(data, Problems(skip=True))


@pytest.fixture
def films() -> Iterator[types.ModuleType]:
    """The page's example as a module, its layout registered."""
    page = (ROOT / "docs" / "layouts.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    module = types.ModuleType("films")
    with LAYOUTS.temporarily(LAYOUTS["bids"]):
        exec(compile(example, "docs/layouts.md", "exec"), vars(module))
        yield module


@pytest.fixture
def filmed(tmp_path) -> np.ndarray:
    """Its study in `tmp_path`; the series of both films."""
    (tmp_path / "p1").mkdir()
    (tmp_path / "clips").mkdir()
    values = np.random.default_rng(0).normal(size=(310, sum(MESH))).astype(np.float32)
    rows = ["stim_file\tcaption"]
    for film in ("film1", "film2"):
        with h5py.File(tmp_path / "p1" / f"{film}.h5", "w") as file:
            file["bold"] = values
        for clip in range(30):
            frames = np.full((8, 16, 16, 3), 8 * clip, np.uint8)
            write_mp4(tmp_path / "clips" / f"{film}_{clip}.mp4", frames, frame_rate=1)
            rows.append(f"{film}_{clip}\tcaption of {clip}")
    (tmp_path / "clips" / "captions.tsv").write_text("\n".join(rows) + "\n")
    return values


def test_the_example_of_the_page_runs(films, filmed, tmp_path):
    values = filmed
    data = config.Data(root=tmp_path, store=tmp_path / "s", subjects=("1",))
    study = films.read_study(data, Problems(skip=False))
    assert [(run.name, run.split) for run in study.runs] == [("film1", "test"), ("film2", "train")]
    np.testing.assert_array_equal(np.concatenate(list(study.runs[0].blocks())), values)
    assert len(study.videos) == len(study.captions) == 60
    problems = Problems(skip=True)
    films.read_study(data.model_copy(update={"subjects": ("1", "2")}), problems)
    assert problems.noted == [f"{tmp_path / 'p2'}: has no film*.h5"]


def test_a_layout_that_nothing_else_knows_becomes_a_store(films, filmed, tmp_path, monkeypatch):
    monkeypatch.setattr(flatmap, "of", lambda _: drawn())
    data = config.Data(
        layout="films",
        root=tmp_path,
        store=tmp_path / "s.zarr",
        subjects=("1",),
        map_size=16,
        frames=2,
        resolution=(16, 16),
    )
    store = prepare(data, progress=False)
    assert store.attributes.layout == "films"
    assert store.attributes.captions["test"][7] == "caption of 7"
    mask, vertices = drawn().mask, drawn().weights.indices
    z = (filmed - filmed.mean(0)) / filmed.std(0, ddof=1)
    fmri = store.fmri("test", [7], subjects=["1"])[0, 0]  # from 70 s on, 4 s later
    np.testing.assert_allclose(fmri[:, mask], z[74:79, vertices], atol=3e-3)
    np.testing.assert_allclose(store.video("test", [7]), 56, atol=3)


@pytest.mark.parametrize(
    ("name", "layout", "runs"),
    [("wen2018", "wen2018", None), ("fudan_webvid", "fudan", None), ("fudan_fcvid", "fudan", 7)],
)
def test_shipped_configurations_name_layout_and_runs(name, layout, runs):
    data = config.load(ROOT / "configs" / f"{name}.yaml").data
    assert data.layout == layout
    # FCVID: the lists of the WebVid part, spelt out to be changed.
    assert data.runs == (runs and {subject: fudan.RUNS[subject] for subject in data.subjects})
