"""Studies that are cleaned while they are prepared."""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from glfa_jax.config import Censor, Cleaning, Confounds, Data
from glfa_jax.data import DataError
from glfa_jax.data.layouts import Layout, Problems, layout_of
from glfa_jax.data.layouts.reading import read_study
from glfa_jax.data.store import Store, drifting_run
from glfa_jax.preparation import prepare
from tests.data.cleaning.runs import write_table
from tests.data.conftest import RUNS, VOLUMES, settings, stem

JERKS = {"01": (2,), "02": (2, 3)}  # volumes, by run
CLEAN = Cleaning(
    polynomial=2,
    confounds=Confounds(columns=("trans_?",)),
    censor=Censor(framewise_displacement=0.5),
    most_censored=0.4,
)


def table(run: str, subject: str) -> dict[str, list[str]]:
    rng = np.random.default_rng([int(run), int(subject)])
    moved = np.full(VOLUMES, 0.1)
    if subject == "01":
        moved[list(JERKS.get(run, ()))] = 1.0
    return {
        "trans_x": [str(value) for value in rng.normal(size=VOLUMES)],
        "framewise_displacement": ["n/a", *map(str, moved[1:])],
    }


@pytest.fixture(scope="module")
def place(study, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("cleaned")
    root = Path(shutil.copytree(study, place / "bids"))
    for subject in ("01", "02"):
        for run in RUNS:
            path = Path(f"{stem(root, subject, run)}_desc-confounds_timeseries.tsv")
            write_table(path, table(run, subject))
    return place


def at(place: Path, **changes) -> Data:
    return settings(place / "bids", place / "a.zarr", **{"clean": CLEAN, **changes})


@pytest.fixture(scope="module")
def cleaned(place) -> Store:
    return prepare(at(place), progress=False)


def test_the_store_says_what_was_done(cleaned, place, capsys):
    about = cleaned.attributes
    assert Cleaning(**about.provenance["settings"]["clean"]) == CLEAN
    files = [name for name in about.provenance["files"] if "confounds" in name]
    assert len(files) == 8
    assert about.kinds == ("carpet", "course_cleaned", "displacement", "tsnr_cleaned")
    assert [run.get("censored") for run in about.runs] == [1, 2, 0, 0, 0, 0, 0, 0]
    assert all(run["tsnr_cleaned"] >= run["tsnr"] for run in about.runs)
    assert prepare(at(place)).attributes.identity == about.identity
    assert "up to date, reused" in capsys.readouterr().out
    with pytest.raises(DataError, match=r"other settings \(clean\)"):
        prepare(at(place, clean=Cleaning(polynomial=3)), progress=False)
    with pytest.raises(DataError, match=r"other settings \(clean\)"):
        prepare(at(place, clean=None), progress=False)


def test_stores_that_differ_in_cleaning_alone_have_one_source(cleaned, place, tmp_path):
    data = at(place, clean=None).model_copy(update={"store": tmp_path / "b.zarr"})
    plain = prepare(data, progress=False)
    assert plain.attributes.identity != cleaned.attributes.identity
    assert plain.attributes.source == plain.attributes.identity == cleaned.attributes.source
    assert plain.attributes.kinds == ("carpet", "displacement")


def test_what_there_is_to_look_at(cleaned):
    moved = cleaned.quality("displacement", "01")
    assert moved.shape == (4 * VOLUMES,)
    assert np.isnan(moved[0])
    assert moved[[2, VOLUMES + 2, VOLUMES + 3]] == pytest.approx(1.0)
    run = drifting_run(cleaned.attributes, "01")
    assert run["subject"] == "01"
    carpet = cleaned.quality("carpet", "01")
    assert carpet.shape == (2, 96, VOLUMES)
    np.testing.assert_allclose(carpet[0].std(axis=1, ddof=1), 1, atol=1e-2)
    tsnr, after = (cleaned.quality(kind, "02") for kind in ("tsnr", "tsnr_cleaned"))
    assert (after[cleaned.mask] >= tsnr[cleaned.mask]).mean() > 0.99
    assert not after[~cleaned.mask].any()


def test_training_samples_that_were_censored_are_left_out_and_said(cleaned):
    # Windows of three volumes from 4 s after the onset on: two of them are censored in run 02.
    present = cleaned.present("train", subjects=["01", "02"])
    names = list(cleaned.attributes.clips["train"])
    assert names == ["a.mp4", "b.mp4", "c.mp4", "d.mp4", "a.mp4", "e.mp4"]
    np.testing.assert_array_equal(present[:, 0], [1, 1, 1, 0, 1, 1])
    assert present[:, 1].all()
    [note] = [note for note in cleaned.attributes.notes if "censored" in note]
    assert note == (
        "sub-01: training samples are left out, 1 of them: more than 40% of a window is censored "
        "for motion (data.clean.censor)"
    )


def test_no_run_has_a_part_in_the_maps_of_another(cleaned, place, tmp_path):
    """The series, the motion and the confounds of a test run change nothing but that run."""
    root = Path(shutil.copytree(place / "bids", tmp_path / "bids"))
    name = stem(root, "01", "03")
    for side in "LR":
        scan = Path(f"{name}_hemi-{side}_space-fsaverage5_bold.func.gii")
        image = nibabel.load(scan)
        for number, array in enumerate(image.darrays):
            array.data = array.data * (1 + 0.1 * number)
        nibabel.save(image, scan)
    write_table(Path(f"{name}_desc-confounds_timeseries.tsv"), table("03", "02"))
    other = prepare(at(tmp_path), progress=False)
    assert other.attributes.identity != cleaned.attributes.identity
    for split, subject, same in (
        ("train", "01", True),
        ("train", "02", True),
        ("test", "02", True),
        ("test", "01", False),
    ):
        clips = range(cleaned.num_clips(split))
        one, two = (each.fmri(split, clips, subjects=[subject]) for each in (cleaned, other))
        assert np.array_equal(one, two) == same, (split, subject)
    subjects = ["01", "02"]
    for one, two in zip(
        *(each.average(subjects=subjects) for each in (cleaned, other)), strict=True
    ):
        np.testing.assert_array_equal(one, two)


def test_rows_of_confounds_keep_in_step_with_volumes_that_are_dropped(place, tmp_path, capsys):
    """The censored volumes are the same ones of the file, whatever is dropped before them."""
    (tmp_path / "bids").symlink_to(place / "bids")
    store = prepare(at(tmp_path, drop_volumes=(1, 2)))
    said = capsys.readouterr().out
    words = "polynomial of order 2, confounds trans_?, censored beyond 0.5 mm"
    assert f"cleaning (data.clean): {words}" in said
    assert "after cleaning, 3 volumes censored" in said
    moved = store.quality("displacement", "01")
    assert moved[:3] == pytest.approx([0.1, 1.0, 0.1])
    assert [run.get("censored") for run in store.attributes.runs[:2]] == [1, 2]
    assert store.attributes.runs[0]["volumes"] == VOLUMES - 3


def test_a_table_is_found_under_its_former_name_and_read_where_it_is_asked_for(place, tmp_path):
    root = Path(shutil.copytree(place / "bids", tmp_path / "bids"))
    table = Path(f"{stem(root, '01', '01')}_desc-confounds_timeseries.tsv")
    former = table.rename(table.with_name(table.name.replace("timeseries", "regressors")))
    sidecar = former.with_suffix(".json")
    sidecar.write_text("{}")
    for clean, files in (
        (CLEAN, {former, sidecar}),
        (None, set()),
        (Cleaning(polynomial=1), set()),
    ):
        run, *_ = read_study(at(tmp_path, clean=clean), Problems(skip=False)).runs
        assert run.confounds == former
        assert {former, sidecar} & set(run.files) == files
    # Of two that hold for one run, neither is the right one.
    other = table.with_name(f"sub-01_run-01_task-clips_{table.name.split('_', 3)[3]}")
    former.rename(table)
    shutil.copy(table, other)
    study = read_study(at(tmp_path, clean=None), Problems(skip=False))
    assert study.runs[0].confounds is None
    assert "hold both for" in study.notes[0]
    with pytest.raises(DataError, match="hold both for"):
        read_study(at(tmp_path), Problems(skip=False))


def test_a_missing_table_and_missing_surfaces_are_named(place, tmp_path):
    root = Path(shutil.copytree(place / "bids", tmp_path / "bids"))
    gone = Path(f"{stem(root, '02', '04')}_desc-confounds_timeseries.tsv")
    gone.unlink()
    with pytest.raises(DataError, match=r"run-04\S+: has no table of confounds beside it"):
        prepare(at(tmp_path), progress=False)
    with pytest.raises(DataError, match=r"smooth_mm: scans of layout fudan .* without surf"):
        prepare(
            at(tmp_path, clean=Cleaning(smooth_mm=4), layout="fudan", subjects=("1",)),
            progress=False,
        )


def test_a_store_of_before_is_used_and_said_not_to_be_cleaned(store, study, monkeypatch, capsys):
    data = settings(study, store.path)
    usual = layout_of(data)
    now = Layout("bids", usual.read, timed_by_events=True, clean=Cleaning(polynomial=4))
    monkeypatch.setattr("glfa_jax.data.layouts.layout_of", lambda _: now)
    assert prepare(data).attributes.identity == store.attributes.identity
    said = capsys.readouterr().out
    assert "was prepared before scans of layout bids were cleaned (polynomial of order 4)" in said
    assert prepare(data.model_copy(update={"clean": Cleaning()}), progress=False)
    with pytest.raises(DataError, match=r"other settings \(clean\)"):
        prepare(data.model_copy(update={"clean": Cleaning(polynomial=4)}), progress=False)


def test_identities_of_stores_without_cleaning_stay_what_they_were(store):
    assert "clean" not in store.attributes.provenance["settings"]
    text = json.dumps(store.attributes.provenance["settings"])
    assert "polynomial" not in text
