"""BOLD Moments as it lies on OpenNeuro: two tasks, events of its own, annotations as captions."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from glfa_jax import config
from glfa_jax.data import DataError
from glfa_jax.data.layouts import Problems, bold_moments
from glfa_jax.data.layouts.reading import read_study
from tests.data.layouts.reading import load, rejects
from tests.data.public_studies import (
    BOLD_RUNS,
    bold_events,
    bold_scan,
    bold_stem,
    bold_video,
    write_bold_moments,
)
from tests.data.scans import write_cifti
from tests.data.test_readers import write_gifti

ANNOTATIONS = "derivatives/stimuli_metadata/annotations.json"


def settings(root: Path, **changes) -> config.Data:
    values = {
        "layout": "bold_moments",
        "root": root,
        "store": root / "store.zarr",
        "subjects": ("01",),
        "space": "fsLR",
    }
    return config.Data(**{**values, **changes})


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Not to be changed."""
    root = tmp_path_factory.mktemp("bold") / "ds005165"
    write_bold_moments(root)
    return root


@pytest.fixture
def root(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "ds005165"))


def test_tasks_are_splits_and_showings_are_counted_over_sessions(whole):
    study = load(settings(whole))
    assert [(run.name, run.split) for run in study.runs] == [
        ("ses-02_task-test_run-1", "test"),
        ("ses-02_task-train_run-1", "train"),
        ("ses-03_task-train_run-10", "train"),
        ("ses-04_task-test_run-3", "test"),
    ]
    run = study.runs[2]
    assert (run.repetition_time, run.start_time) == (1.75, 0.0)
    # Nothing of the fixation; the odd one out leaves a gap behind the first clip.
    assert [(trial.clip, trial.onset, trial.duration) for trial in run.trials] == [
        ("train/0002.mp4", 7.0, 3.0),
        ("train/0003.mp4", 15.5, 3.0),
        ("train/0001.mp4", 19.75, 3.0),
    ]
    for split in ("train", "test"):
        repeats = [[t.repeat for t in run.trials] for run in study.runs if run.split == split]
        assert repeats == [[1] * len(repeats[0]), [2] * len(repeats[0])]
    assert study.captions["test/1002.mp4"] == "Clip 1002 is described in sentence 1"
    assert study.videos["test/1002.mp4"].path == bold_video(whole, "test", 1002)
    assert run.files[0] == bold_scan(whole, "01", "train", "03", 10)
    assert run.files[-1] == bold_events(whole, "01", "train", "03", 10)
    assert whole / ANNOTATIONS in study.files
    assert study.notes == ()


@pytest.mark.parametrize("kind", ["oddball", "Oddball"])
def test_odd_ones_out_are_no_trials_though_they_have_a_stimulus(root, kind):
    table = bold_events(root, "01", "train", "02", 1)
    before = [run.trials for run in load(settings(root)).runs]
    header, *rows = table.read_text().splitlines()
    columns = {"onset": "300", "duration": "3", "trial_type": kind, "stim_file": "train/odd.mp4"}
    odd = "\t".join(columns.get(name, "n/a") for name in header.split("\t"))
    table.write_text("\n".join([header, *rows, odd]) + "\n")
    problems = Problems(skip=False)
    assert [run.trials for run in read_study(settings(root), problems).runs] == before
    assert not problems.missing.lines


def test_captions_of_frames_and_tables_of_ones_own_serve_as_well(root):
    frames = root / "derivatives/stimuli_metadata/llm_frame_annotations.json"
    known = json.loads((root / ANNOTATIONS).read_text())
    frames.write_text(
        json.dumps({n: {"GIT-git-large-coco": [f"frame of {n}", "another"]} for n in known})
    )
    assert load(settings(root, captions=frames)).captions["train/0003.mp4"] == "frame of 0003"
    table = root / "captions.tsv"
    table.write_text(
        "stim_file\tcaption\n"
        + "".join(f"{entry['set']}/{n}.mp4\tmine of {n}\n" for n, entry in known.items())
    )
    assert load(settings(root, captions=table)).captions["test/1001.mp4"] == "mine of 1001"


@pytest.mark.parametrize("folder", bold_moments.STIMULI)
def test_clips_may_lie_where_the_archive_was_unpacked(root, folder):
    """In one folder without those of the splits."""
    clips = root / "derivatives/stimuli_metadata/stimuli"
    kept = clips.rename(root / "kept")
    (root / folder).mkdir(parents=True)
    for path in kept.glob("*/*.mp4"):
        path.rename(root / folder / path.name)
    assert load(settings(root)).videos["test/1001.mp4"].path == root / folder / "1001.mp4"


def test_the_raw_study_may_lie_in_nifti(root):
    (root / "Nifti").mkdir()
    (root / "sub-01").rename(root / "Nifti" / "sub-01")
    study = load(settings(root))
    assert study.runs[0].files[-1] == bold_events(root / "Nifti", "01", "test", "02", 1)


def test_surfaces_of_freesurfer(root):
    for task, session, run in BOLD_RUNS:
        scan = bold_scan(root, "01", task, session, run)
        stem = bold_stem("01", task, session, run)
        for side in "LR":
            path = scan.with_name(f"{stem}_hemi-{side}_space-fsaverage_bold.func.gii")
            write_gifti(path, np.ones((9, 4)), {"L": "CortexLeft", "R": "CortexRight"}[side])
        sidecar = scan.with_name(scan.name.replace(".dtseries.nii", ".json"))
        shutil.copy(sidecar, scan.with_name(f"{stem}_hemi-L_space-fsaverage_bold.json"))
    study = load(settings(root, space="fsaverage"))
    assert len(study.runs) == 4
    assert next(study.runs[0].blocks()).shape == (9, 8)


def test_another_number_of_volumes_or_repetition_time_is_rejected(root):
    scan = bold_scan(root, "01", "train", "02", 1)
    write_cifti(scan, 237, step=1.75)
    study = rejects(
        r"sub-01_ses-02_task-train_run-1_\S+: 237 volumes, must be 238 in a train run",
        settings(root),
    )
    assert len(study.runs) == 3
    write_cifti(scan, 238, step=2.0)
    rejects(r"its header says TR 2 s and its sidecar 1\.75 s", settings(root))
    sidecar = scan.with_name(scan.name.replace(".dtseries.nii", ".json"))
    sidecar.write_text(json.dumps({"RepetitionTime": 2.0}))
    rejects(r"TR 2 s, must be 1\.75 s as in all of BOLD Moments", settings(root))


def test_captions_for_other_clips_are_noticed(root):
    known = json.loads((root / ANNOTATIONS).read_text())
    (root / ANNOTATIONS).write_text(json.dumps({"2001": known["0001"]}))
    rejects(r"annotations\.json: has no caption for clip test/1001\.mp4 and 4 more", settings(root))
    for content, says in (
        ({"0001": ["a"]}, r"must hold an object for each clip, .* for 0001"),
        ({"0001": {"text_descriptions": [" "]}}, r"describes no clip"),
        ([], r"annotations\.json: must hold a JSON object"),
    ):
        (root / ANNOTATIONS).write_text(json.dumps(content))
        with pytest.raises(DataError, match=says):
            load(settings(root))


def test_what_is_missing_is_named(root):
    with pytest.raises(DataError, match=r"^data\.space: must be one of fsLR, .*, is T1w$"):
        load(settings(root, space="T1w"))
    rejects(
        r"sub-02: has no scans sub-02_task-train\|test_\*space-fsLR",
        settings(root, subjects=("02",)),
    )
    bold_video(root, "test", 1001).unlink()
    scan = bold_scan(root, "01", "test", "04", 3)
    scan.unlink()
    scan.symlink_to("gone")
    problems = Problems(skip=False)
    assert len(read_study(settings(root), problems).runs) == 3
    assert problems.missing.lines == [
        "not there: run ses-04_task-test_run-3 of subject 01",
        f"not there: 1001.mp4 in {bold_video(root, 'test', 1001).parent}",
    ]
    bold_events(root, "01", "train", "02", 1).unlink()
    rejects(r"task-train_run-1_events\.tsv: no such file; looked in", settings(root))
    shutil.rmtree(root / bold_moments.DERIVATIVE)
    with pytest.raises(DataError, match=r"versionB/fmriprep: no such folder; layout bold_moments"):
        load(settings(root))
