"""Which reader is taken; and the page on new layouts, whose example must run."""

import re
import types
from pathlib import Path
from typing import get_args

import h5py
import numpy as np
import pytest

from glfa_jax import config
from glfa_jax.data import DataError
from glfa_jax.data.layouts import Problems, fudan, reading

ROOT = Path(__file__).parents[3]


def test_every_layout_of_the_schema_has_a_reader():
    assert set(get_args(config.Data.model_fields["layout"].annotation)) == set(reading.LAYOUTS)


def test_the_layout_decides(tmp_path, monkeypatch):
    for layout in reading.LAYOUTS:
        data = config.Data(layout=layout, root=tmp_path, store=tmp_path / "s", subjects=("1",))
        with monkeypatch.context() as patch:
            patch.setitem(reading.LAYOUTS, layout, lambda data, problems: (data, problems))
            problems = Problems(skip=True)
            assert reading.read_study(data, problems) == (data, problems)
        gone = data.model_copy(update={"root": tmp_path / "gone"})
        with pytest.raises(DataError, match="gone: no such study folder"):
            reading.read_study(gone, Problems(skip=True))


def test_the_example_of_the_page_runs(tmp_path):
    page = (ROOT / "docs" / "layouts.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    films = types.ModuleType("films")
    exec(compile(example, "docs/layouts.md", "exec"), vars(films))
    (tmp_path / "p1").mkdir()
    (tmp_path / "clips").mkdir()
    values = np.random.default_rng(0).normal(size=(310, 6)).astype(np.float32)
    rows = ["stim_file\tcaption"]
    for film in ("film1", "film2"):
        with h5py.File(tmp_path / "p1" / f"{film}.h5", "w") as file:
            file["bold"] = values
        for clip in range(30):
            (tmp_path / "clips" / f"{film}_{clip}.mp4").touch()
            rows.append(f"{film}_{clip}\tcaption of {clip}")
    (tmp_path / "clips" / "captions.tsv").write_text("\n".join(rows) + "\n")
    data = config.Data(root=tmp_path, store=tmp_path / "s", subjects=("1",))
    study = films.read_study(data, Problems(skip=False))
    assert [(run.name, run.split) for run in study.runs] == [("film1", "test"), ("film2", "train")]
    np.testing.assert_array_equal(np.concatenate(list(study.runs[0].blocks())), values)
    assert len(study.videos) == len(study.captions) == 60
    problems = Problems(skip=True)
    films.read_study(data.model_copy(update={"subjects": ("1", "2")}), problems)
    assert problems.noted == [f"{tmp_path / 'p2'}: has no film*.h5"]


@pytest.mark.parametrize(
    ("name", "layout", "runs"),
    [("wen2018", "wen2018", None), ("fudan_webvid", "fudan", None), ("fudan_fcvid", "fudan", 7)],
)
def test_shipped_configurations_name_layout_and_runs(name, layout, runs):
    data = config.load(ROOT / "configs" / f"{name}.yaml").data
    assert data.layout == layout
    # FCVID: the lists of the WebVid part, spelt out to be changed.
    assert data.runs == (runs and {subject: fudan.RUNS[subject] for subject in data.subjects})
