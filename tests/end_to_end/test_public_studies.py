"""Every layout, tiny: from the files of a study to the report that a person reads, and from the
files of one run to its video."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import glfa_jax
from glfa_jax import config, decode, export
from glfa_jax.data import look
from glfa_jax.data.layouts import LAYOUTS
from glfa_jax.data.store import Store
from glfa_jax.evaluation import sample, score
from glfa_jax.preparation import prepare
from glfa_jax.report.words import subjects_text
from glfa_jax.results import Scores
from glfa_jax.stages import cotrain
from tests.data.public_studies import Cortex, write_cortex
from tests.end_to_end.layouts import CASES, CLIPS, Case
from tests.end_to_end.sharing import programs_shared
from tests.end_to_end.test_study import TINY

ONE_STEP = {"steps": 1, "batch_size": 4}
SIZES: dict[str, Any] = {
    **TINY,
    "pretrain": ONE_STEP,
    "contrast": ONE_STEP,
    "cotrain": ONE_STEP,
    "evaluation": TINY["evaluation"] | {"clips": CLIPS},
}
Finished = tuple[Case, config.Config, Path]
"""A case, its settings, and where its files lie."""


def test_every_layout_has_a_case():
    assert {case.layout for case in CASES.values()} == set(LAYOUTS)


@pytest.fixture(scope="module")
def cortex(tmp_path_factory) -> Cortex:
    return write_cortex(tmp_path_factory.mktemp("cortex"))


@pytest.fixture(scope="module", autouse=True)
def shared():
    with programs_shared():
        yield


@pytest.fixture(scope="module", params=CASES)
def study(request, cortex, tmp_path_factory) -> Finished:
    """What the commands of a study's page leave."""
    case = CASES[request.param]
    place = tmp_path_factory.mktemp(case.layout)
    settings = config.Config(**case.settings(place, cortex, SIZES))
    prepare(settings.data, progress=False)
    assert look.command([str(settings.data.store)]) == 0
    for step in (cotrain, sample, score):
        step.main(settings)
    return case, settings, place


def test_from_the_files_to_the_report(study):
    case, settings, place = study
    run, store = settings.run_dir, Store.open(settings.data.store)
    assert store.attributes.layout == case.layout
    assert case.layout in (place / "store.html").read_text()
    assert store.attributes.subjects == settings.data.subjects
    assert len(settings.data.subjects) == 3
    (subject,) = settings.protocol.test_subjects

    index = json.loads((run / "samples" / "index.json").read_text())
    names = store.attributes.clips["test"]
    assert {names[entry["clip"]]: entry["caption"] for entry in index} == case.captions
    assert [entry["subject"] for entry in index] == [subject] * CLIPS
    videos = np.concatenate(
        [np.load(path)["video"] for path in sorted((run / "samples" / subject).glob("*.npz"))]
    )
    assert videos.shape == (CLIPS, settings.data.frames, *settings.data.resolution, 3)
    assert len({video.tobytes() for video in videos}) == CLIPS
    assert all((run / "samples" / entry["generated"]).stat().st_size for entry in index)

    scores = Scores.read(run)
    assert [(clip.subject, names[clip.clip]) for clip in scores.clips] == [
        (subject, name) for name in case.captions
    ]
    values = [value for clip in scores.clips for value in clip.scores.values()]
    assert len(values) == CLIPS * len(scores.metrics)
    assert np.isfinite([*values, *(one.value for one in scores.overall.values())]).all()
    assert {"video 2-way", "frame 50-way", "SSIM"} <= scores.metrics.keys()
    assert str(scores.protocol) == "cross-subject, strict pretraining"
    assert all(row["n"] == CLIPS for row in json.loads((run / "metrics.json").read_text()))

    page = (run / "report" / "index.html").read_text()
    assert f"<title>Video decoding from fMRI: {settings.name}</title>" in page
    trained = subjects_text(settings.protocol.train_subjects)
    assert f"Trained on {trained}, the model decoded {CLIPS} test clips" in page
    assert f"from the fMRI of subject {subject} (cross-subject decoding, strict pretra" in page
    assert all(caption in page for caption in case.captions.values())


DECODED = [name for name, case in CASES.items() if case.run is not None]


@pytest.mark.parametrize("study", DECODED, indirect=True)
def test_one_run_is_decoded_by_an_export(study, tmp_path, monkeypatch):
    """Scans as the layout names them, with events or films."""
    case, settings, place = study
    run, out, root = case.run, tmp_path / "decoded", place / "study"
    assert run is not None
    assert export.command([str(settings.run_dir), str(tmp_path / "model")]) == 0
    decoder = glfa_jax.load(tmp_path / "model")
    monkeypatch.setattr(decode, "load", lambda _: decoder)
    shown = {key: str(root / value) for key, value in run.shown.items()}
    options = [word for key, value in shown.items() for word in (f"--{key}", value)]
    scans = [root / scan for scan in run.scans]
    given = [str(tmp_path / "model"), *map(str, scans), "--out", str(out), *options]
    assert decode.command([*given, "--samples", "1"]) == 0
    with (out / "clips.tsv").open() as file:
        rows = list(csv.DictReader(file, dialect="excel-tab"))
    assert [row["clip"] for row in rows] == list(run.clips)
    assert all((out / row[kind]).stat().st_size for row in rows for kind in ("file", "shown"))
    page = (out / "index.html").read_text()
    assert all(scan.name in page for scan in scans)
    assert page.count("data:video/mp4") == 2 * len(rows)

    films = {"films": [shown.pop("films")]} if "films" in shown else {}
    asked: dict[str, Any] = {**shown, **films}
    maps = decoder.maps_of(scans, **asked).maps
    (subject,), store = settings.protocol.test_subjects, Store.open(settings.data.store)
    split = "test" if next(iter(run.clips.values())) in store.attributes.clips["test"] else "train"
    places = [store.attributes.clips[split].index(name) for name in run.clips.values()]
    stored = store.fmri(split, places, subjects=[subject])[:, 0]
    if run.exact:
        np.testing.assert_array_equal(maps, stored)
    assert np.corrcoef(maps.ravel(), stored.ravel())[0, 1] > 0.95
