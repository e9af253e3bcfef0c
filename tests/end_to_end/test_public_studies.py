"""Public studies, tiny: from their files to a stage that trains, and to the page on the store.

What follows sees the store alone, of whatever study it is: `test_study` goes on from there.
"""

from pathlib import Path
from typing import Any

import pytest

from glfa_jax import config
from glfa_jax.data import look
from glfa_jax.data.layouts import wen2018
from glfa_jax.preparation import prepare
from glfa_jax.stages import pretrain
from tests.data.public_studies import (
    write_bold_moments,
    write_cortex,
    write_hcp7t,
    write_wen_volume_study,
)
from tests.end_to_end.test_study import TINY

SUBJECTS = ("1", "2", "3")


def bold_moments(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    runs = {("train", "02", 1): [*range(1, 9)], ("test", "02", 1): [1001, 1002, 1003, 1004]}
    write_bold_moments(root, subjects=SUBJECTS, runs=runs, size=64)
    return {"space": "fsLR"}


def hcp(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    write_hcp7t(root, subjects=SUBJECTS)
    return {"space": "fsLR", "clip_seconds": 20, "captions": str(root / "captions.tsv")}


def wen(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    films = [wen2018._Film("seg1", "train", 1), wen2018._Film("test1", "test", 1)]
    monkeypatch.setattr(wen2018, "FILMS", films)
    write_wen_volume_study(root, {"seg1": [1], "test1": [1]}, subjects=SUBJECTS)
    return {"space": "MNI152NLin6Asym", "captions": str(root / "captions.tsv")}


@pytest.mark.parametrize(
    ("layout", "write"), [("bold_moments", bold_moments), ("hcp7t", hcp), ("wen2018", wen)]
)
def test_from_files_to_training_and_the_page(layout, write, tmp_path, monkeypatch):
    cortex = write_cortex(tmp_path / "cortex")
    own = write(tmp_path / "study", monkeypatch)
    tree: dict[str, Any] = {**TINY, "run_dir": str(tmp_path / "run")}
    data = {key: value for key, value in tree["data"].items() if key != "simulation"}
    tree["data"] = {
        **data,
        **own,
        "layout": layout,
        "root": str(tmp_path / "study"),
        "store": str(tmp_path / "store.zarr"),
        "subjects": list(SUBJECTS),
        "surfaces": cortex.surfaces,
        "region": cortex.region,
        "workers": 1,
    }
    tree["protocol"] = {"train_subjects": list(SUBJECTS[:2]), "test_subjects": [SUBJECTS[2]]}
    settings = config.Config(**tree)
    store = prepare(settings.data, progress=False)
    pretrain.run(settings, store)
    model = tmp_path / "run" / "pretrain" / "model" / "model.safetensors"
    assert model.is_file()
    about = store.attributes
    assert (about.layout, about.subjects) == (layout, SUBJECTS)
    assert look.command([str(settings.data.store)]) == 0
    assert layout in (tmp_path / "store.html").read_text()
