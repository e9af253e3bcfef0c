"""BIDS derivatives as fMRIPrep names them, of surfaces, CIFTI and volumes."""

import gzip
import json
import shutil
import unicodedata
from pathlib import Path

import nibabel
import numpy as np
import pytest

from glfa_jax import config
from glfa_jax.data import DataError, surfaces
from glfa_jax.data.layouts import Problems
from glfa_jax.data.layouts.reading import read_study
from tests.data.layouts.reading import load, rejects
from tests.data.scans import MESH, write_cifti, write_nifti
from tests.data.test_readers import AFFINE, two_sides, write_gifti

TR = 1.5
VOLUMES = 12
SPACES = {
    "gifti": "fsaverage5",
    "cifti": "fsLR",
    "volume": "MNI152NLin2009cAsym",
}
HEADER = "onset\tduration\ttrial_type\tstim_file\trepeat\n"


def series_of(run: int) -> np.ndarray:
    return np.random.default_rng(run).normal(1000, 10, (VOLUMES, 30)).astype(np.float32)


def write_scan(folder: Path, stem: str, kind: str, run: int) -> list[Path]:
    """The files fMRIPrep would write; the scans first, the sidecar last."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "gifti":
        scans = [folder / f"{stem}_hemi-{s}_space-fsaverage5_bold.func.gii" for s in "LR"]
        for path, part, side in zip(scans, (slice(14), slice(14, 30)), ("Left", "Right"), strict=1):
            write_gifti(path, series_of(run)[:, part], f"Cortex{side}")
    elif kind == "cifti":
        scans = [folder / f"{stem}_space-fsLR_den-91k_bold.dtseries.nii"]
        write_cifti(scans[0], VOLUMES, step=TR, seed=run)
    else:
        name = f"{stem}_space-MNI152NLin2009cAsym_res-2_desc-preproc_bold.nii.gz"
        scans = [folder / name]
        values = np.random.default_rng(run).normal(1000, 10, (7, 8, 9, VOLUMES))
        write_nifti(scans[0], values, affine=AFFINE, step=TR)
    sidecar = scans[0].with_name(scans[0].name.split(".")[0] + ".json")
    sidecar.write_text(json.dumps({"RepetitionTime": TR, "StartTime": 0.75}))
    return [*scans, sidecar]


def write_events(folder: Path, stem: str, split: str, clips: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}_events.tsv"
    rows = "".join(f"{3.0 * i}\t2.0\t{split}\t{clip}.mp4\t1\n" for i, clip in enumerate(clips))
    path.write_text(HEADER + rows)
    return path


def write_stimuli(root: Path) -> None:
    (root / "stimuli").mkdir(parents=True)
    for clip in "abxy":
        (root / "stimuli" / f"{clip}.mp4").touch()
    rows = "".join(f"{clip}.mp4\tcaption {clip}\n" for clip in "abxy")
    (root / "stimuli" / "captions.tsv").write_text("stim_file\tcaption\n" + rows)


def write_study(root: Path, kind: str) -> Path:
    write_stimuli(root)
    for run, (split, clips) in enumerate([("train", "ab"), ("test", "xy")], start=1):
        stem = f"sub-01_task-clips_run-{run}"
        write_scan(root / "sub-01" / "func", stem, kind, run)
        write_events(root / "sub-01" / "func", stem, split, clips)
    return root


def settings(root: Path, kind: str = "gifti", **changes) -> config.Data:
    values = {"root": root, "store": root / "a.zarr", "subjects": ("01",), "space": SPACES[kind]}
    return config.Data(**{**values, **changes})


@pytest.fixture(autouse=True)
def mesh(monkeypatch):
    """Surfaces of few vertices for the volumes."""
    monkeypatch.setattr(surfaces, "load", lambda data: two_sides(), raising=False)


def lacks(data):
    """The study, and the lines on what is not there."""
    problems = Problems(skip=False)
    study = read_study(data, problems)
    return study, problems.missing.lines


def expected_of(kind: str, run: int, folder: Path) -> np.ndarray:
    if kind == "gifti":
        return series_of(run)
    if kind == "cifti":
        return write_cifti(folder / "again.dtseries.nii", VOLUMES, seed=run)
    return None


@pytest.mark.parametrize("kind", ["gifti", "volume"])
def test_maps_of_anatomy_are_those_of_the_mesh(tmp_path, kind):
    """Volumes are sampled to a mesh, and it is this whose maps of anatomy are taken."""
    root = write_study(tmp_path / "bids", kind)
    folder = root / "sub-01" / "anat"
    folder.mkdir()
    for space in ("fsaverage5", SPACES["volume"], "fsLR"):
        for side in "LR":
            (folder / f"sub-01_hemi-{side}_space-{space}_curv.shape.gii").touch()
    left, right = load(settings(root, kind)).anatomy["01"]["curv"]
    assert left.name == "sub-01_hemi-L_space-fsaverage5_curv.shape.gii"
    assert right.name == "sub-01_hemi-R_space-fsaverage5_curv.shape.gii"


@pytest.mark.parametrize("kind", SPACES)
def test_the_kind_follows_from_the_files(tmp_path, kind):
    study = load(settings(write_study(tmp_path / "bids", kind), kind))
    assert [(run.name, run.split) for run in study.runs] == [("1", "train"), ("2", "test")]
    run = study.runs[1]
    assert (run.repetition_time, run.start_time, run.tail) == (TR, 0.75, 0)
    assert [(trial.clip, trial.onset) for trial in run.trials] == [("x.mp4", 0.0), ("y.mp4", 3.0)]
    series = np.concatenate(list(run.blocks()))
    if kind == "volume":  # values: see the reader's own test
        assert series.shape == (VOLUMES, 21)
        assert 900 < series.min() < series.max() < 1100
    else:
        np.testing.assert_array_equal(series, expected_of(kind, 2, tmp_path))
    assert len(run.scans) == (2 if kind == "gifti" else 1)
    assert run.files[: len(run.scans)] == run.scans
    assert [path.name.split("_")[-1] for path in run.files[len(run.scans) :]] == [
        "bold.json",
        "events.tsv",
    ]
    assert study.captions == {f"{clip}.mp4": f"caption {clip}" for clip in "abxy"}
    part = study.videos["a.mp4"]
    assert (part.path, part.start, part.duration) == (
        tmp_path / "bids" / "stimuli" / "a.mp4",
        0.0,
        None,
    )
    assert tmp_path / "bids" / "stimuli" / "captions.tsv" in study.files
    assert study.notes == ()


def test_sessions_and_more_entities(tmp_path):
    root = tmp_path / "bids"
    write_stimuli(root)
    for session, run, (split, clips) in (
        ("b", 1, ("test", "xy")),
        ("a", 10, ("train", "b")),
        ("a", 2, ("train", "a")),
    ):
        folder = root / "sub-01" / f"ses-{session}" / "func"
        stem = f"sub-01_ses-{session}_task-clips_acq-mb4_run-{run}"
        write_scan(folder, stem, "cifti", run)
        write_events(folder, stem, split, clips)
    # Other tasks, spaces and kinds of files do not disturb.
    write_scan(folder, "sub-01_ses-a_task-rest_acq-mb4_run-2", "cifti", 3)
    write_scan(folder, "sub-01_ses-a_task-clips_acq-mb4_run-2", "gifti", 4)
    (folder / "sub-01_ses-a_task-clips_acq-mb4_run-2_space-fsLR_boldref.nii.gz").touch()
    (folder / "sub-01_ses-a_task-clips_acq-mb4_run-2_desc-confounds_timeseries.tsv").touch()
    study = load(settings(root, "cifti"))
    assert [run.name for run in study.runs] == [
        "ses-a_acq-mb4_run-2",
        "ses-a_acq-mb4_run-10",
        "ses-b_acq-mb4_run-1",
    ]
    assert [run.trials[0].clip for run in study.runs] == ["a.mp4", "b.mp4", "x.mp4"]


def test_a_task_of_one_run_without_number(tmp_path):
    root = write_study(tmp_path / "bids", "cifti")
    for path in (root / "sub-01" / "func").iterdir():
        if "_run-2_" in path.name:
            path.unlink()
        else:
            path.rename(path.with_name(path.name.replace("_run-1_", "_")))
    (run,) = load(settings(root, "cifti")).runs
    assert (run.name, len(run.trials)) == ("only", 2)


def test_events_and_stimuli_in_the_raw_study_around_the_derivative(tmp_path):
    raw = write_study(tmp_path / "raw", "gifti")
    root = raw / "derivatives" / "fmriprep"
    write_scan(root / "sub-01" / "func", "sub-01_task-clips_run-1", "cifti", 1)
    study, lines = lacks(settings(root, "cifti"))
    assert [trial.clip for trial in study.runs[0].trials] == ["a.mp4", "b.mp4"]
    assert study.videos["a.mp4"].path == raw / "stimuli" / "a.mp4"
    assert lines == ["not there: run 2 of subject 01"]
    gone = raw / "sub-01" / "func" / "sub-01_task-clips_run-1_events.tsv"
    gone.unlink()
    rejects(
        r"fmriprep/sub-01/func/sub-01_task-clips_run-1_events\.tsv: no such file; looked in "
        r"\S+fmriprep/sub-01/func and \S+raw/sub-01$",
        settings(root, "cifti"),
    )


def test_captions_may_lie_elsewhere(tmp_path):
    root = write_study(tmp_path / "bids", "cifti")
    table = (root / "stimuli" / "captions.tsv").rename(tmp_path / "words.tsv")
    assert load(settings(root, "cifti", captions=table)).captions["a.mp4"] == "caption a"
    with pytest.raises(DataError, match=r"stimuli/captions\.tsv: no such file"):
        load(settings(root, "cifti"))


@pytest.mark.parametrize("kind", ["gifti", "cifti"])
def test_volumes_to_drop_move_the_start(tmp_path, kind):
    root = write_study(tmp_path / "bids", kind)
    run = load(settings(root, kind, drop_volumes=(3, 2))).runs[0]
    assert run.start_time == 0.75 + 3 * TR
    series = np.concatenate(list(run.blocks()))
    np.testing.assert_array_equal(series, expected_of(kind, 1, tmp_path)[3:-2])
    run = load(settings(root, kind, drop_volumes=(8, 4))).runs[0]
    with pytest.raises(DataError, match=r"run-1_\S+: 12 volumes, and 8 \+ 4 of them are to be"):
        list(run.blocks())


@pytest.mark.parametrize("kind", ["cifti", "volume"])
def test_a_wrong_repetition_time_is_noticed(tmp_path, kind):
    root = write_study(tmp_path / "bids", kind)
    (sidecar,) = (root / "sub-01" / "func").glob("*run-2*.json")
    sidecar.write_text('{"RepetitionTime": 1.5009}')
    load(settings(root, kind))
    sidecar.write_text('{"RepetitionTime": 2.0}')
    study = rejects(
        r"run-2_\S+nii\S*: its header says TR 1\.5 s and its sidecar 2 s; correct the wrong one",
        settings(root, kind),
    )
    assert [run.name for run in study.runs] == ["1"]  # nothing else is lost
    # Another spelling of the sidecar, as some versions of fMRIPrep have it.
    if kind == "cifti":
        sidecar.write_text(json.dumps({"RepetitionTime": TR}))
        sidecar.rename(sidecar.with_name(sidecar.name.replace(".json", ".dtseries.json")))
        assert len(load(settings(root, kind)).runs) == 2


@pytest.fixture
def root(tmp_path):
    return write_study(tmp_path / "bids", "gifti")


def file(root, ending, run=1):
    return root / "sub-01" / "func" / f"sub-01_task-clips_run-{run}_{ending}"


@pytest.mark.parametrize("side", "LR")
def test_the_time_that_either_hemisphere_states_is_compared(root, side):
    path = file(root, f"hemi-{side}_space-fsaverage5_bold.func.gii", run=2)
    image = nibabel.load(path)
    for stated, noted in (("1500.0", 0), ("1.5", 1), ("1000", 1), ("2000", None)):
        image.meta["TimeStep"] = stated
        nibabel.save(image, path)
        if noted is None:
            rejects(rf"run-2_hemi-{side}_\S+: its header says TR 2 s and its", settings(root))
        else:
            study = load(settings(root))
            assert [note.startswith(f"{path}: its header") for note in study.notes] == noted * [
                True
            ]
            assert [(run.repetition_time, run.sides) for run in study.runs] == 2 * [(TR, (14, 16))]


def test_a_packed_series_is_found(tmp_path):
    root = write_study(tmp_path / "bids", "cifti")
    for path in (root / "sub-01" / "func").glob("*.nii"):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    run = load(settings(root, "cifti")).runs[0]
    assert (run.sides, run.scans[0].suffix) == (MESH, ".gz")
    np.testing.assert_array_equal(
        np.concatenate(list(run.blocks())), expected_of("cifti", 1, tmp_path)
    )


@pytest.mark.parametrize(("side", "word"), [("L", "left"), ("R", "right")])
def test_a_run_of_which_a_hemisphere_is_missing_is_left_out(root, side, word):
    file(root, f"hemi-{side}_space-fsaverage5_bold.func.gii").unlink()
    study, lines = lacks(settings(root))
    assert [run.name for run in study.runs] == ["2"]
    assert lines == [f"not there: run 1 ({word} hemisphere) of subject 01"]


def test_what_git_annex_did_not_fetch_is_not_there(root):
    gone = file(root, "hemi-L_space-fsaverage5_bold.func.gii", run=2)
    gone.unlink()
    gone.symlink_to("../.git/annex/objects/none")
    study, lines = lacks(settings(root))
    assert [run.name for run in study.runs] == ["1"]
    assert lines == ["not there: run 2 of subject 01"]
    (root / "stimuli" / "b.mp4").write_text("/annex/objects/MD5E-s1--d41d8cd98f00b204.mp4\n")
    study, lines = lacks(settings(root))
    assert lines[1:] == [f"not there: b.mp4 in {root / 'stimuli'}"]
    for path in (root / "sub-01" / "func").glob("*.gii"):
        path.unlink()
        path.symlink_to("none")
    rejects(r"nothing of subject 01 is there, neither run 1 and run 2$", settings(root))


def test_missing_sidecar_and_events(root):
    file(root, "hemi-L_space-fsaverage5_bold.json").unlink()
    rejects(r"run-1_hemi-L_\S+\.json: no such file", settings(root))
    file(root, "events.tsv", run=2).unlink()
    study = rejects(r"run-1_hemi-L_\S+\.json: no such file", settings(root))
    assert study.runs == ()


def test_events_without_scan_are_not_passed_over(root):
    for side in "LR":
        file(root, f"hemi-{side}_space-fsaverage5_bold.func.gii").unlink()
    study, lines = lacks(settings(root))
    assert [run.name for run in study.runs] == ["2"]
    assert lines == ["not there: run 1 of subject 01"]


def test_a_missing_subject(root):
    study = rejects(
        r"sub-02: has no scans sub-02_task-clips_\*space-fsaverage5_\*bold with one of the endings",
        settings(root, subjects=("02", "01")),
    )
    assert [run.subject for run in study.runs] == ["01", "01"]


def test_a_run_in_two_forms_is_rejected(tmp_path):
    root = write_study(tmp_path / "bids", "cifti")
    scan = file(root, "space-fsLR_den-91k_bold.dtseries.nii")
    shutil.copy(scan, str(scan).replace("den-91k", "den-170k"))
    rejects(
        r"func: one run in several forms \(\S+den-170k\S+, \S+den-91k\S+\)",
        settings(root, "cifti"),
    )


def test_exchanged_hemispheres_are_noticed(root):
    left, right = (file(root, f"hemi-{s}_space-fsaverage5_bold.func.gii") for s in "LR")
    left.rename(root / "aside")
    right.rename(left)
    (root / "aside").rename(right)
    run = load(settings(root)).runs[0]
    with pytest.raises(DataError, match=r"hemi-L_\S+: holds CortexRight, must hold the left"):
        list(run.blocks())


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "x\t2\ttrain\ta.mp4\t3",
            "line 2: onset must be a number of seconds from -86400 to 86400, is 'x'",
        ),
        ("0\t2\ttrain\t../a.mp4\t3", "line 2: stim_file must name a file inside stimuli/"),
        ("0\t2\trest\ta.mp4\t3", "trial_type must be train or test throughout, is rest"),
        ("0\t2\ttrain\ta.mp4\t-1", "line 2: repeat must be a whole number >= 0, is '-1'"),
    ],
)
def test_events_that_make_no_sense(root, row, message):
    file(root, "events.tsv").write_text(f"{HEADER}{row}\n")
    study = rejects(rf"run-1_events\.tsv: {message}", settings(root))
    assert [run.name for run in study.runs] == ["2"]


@pytest.mark.parametrize(
    ("sidecar", "message"),
    [
        ("{", "not valid JSON"),
        ("{}", "must be JSON with RepetitionTime in seconds"),
        ('{"RepetitionTime": "2"}', "RepetitionTime must be a number of seconds, is '2'"),
        (
            '{"RepetitionTime": 2, "StartTime": 5}',
            "StartTime must be within 2 repetition times of 2 s, is 5 s",
        ),
    ],
)
def test_sidecars_that_make_no_sense(root, sidecar, message):
    file(root, "hemi-L_space-fsaverage5_bold.json").write_text(sidecar)
    rejects(rf"bold\.json: {message}", settings(root))


def test_clips_without_video_are_left_out_and_those_without_caption_when_asked(root):
    (root / "stimuli" / "b.mp4").unlink()
    study, lines = lacks(settings(root))
    assert lines == [f"not there: b.mp4 in {root / 'stimuli'}"]
    assert [trial.clip for run in study.runs for trial in run.trials] == ["a.mp4", "x.mp4", "y.mp4"]
    assert "b.mp4" not in study.videos
    table = root / "stimuli" / "captions.tsv"
    table.write_text("".join(line for line in table.open() if not line.startswith("a.mp4")))
    (root / "stimuli" / "b.mp4").touch()
    study = rejects(r"captions\.tsv: has no caption for clip a\.mp4$", settings(root))
    assert set(study.captions) == {"b.mp4", "x.mp4", "y.mp4"}


def events_of(root, run):
    return load(settings(root)).runs[run - 1].trials


def sidecars_away(root):
    """Without sidecars of its own, every scan depends on what it inherits."""
    for path in (root / "sub-01" / "func").glob("*_bold.json"):
        path.unlink()


def test_the_raw_study_may_write_runs_with_more_digits(tmp_path):
    raw = write_study(tmp_path / "raw", "gifti")
    root = raw / "derivatives" / "fmriprep"
    write_scan(root / "sub-01" / "func", "sub-01_task-clips_run-1", "cifti", 1)
    events = file(raw, "events.tsv")
    events.rename(events.with_name(events.name.replace("run-1", "run-001")))
    (run,) = load(settings(root, "cifti")).runs
    assert (run.name, run.trials[0].clip) == ("1", "a.mp4")
    write_scan(root / "sub-01" / "func", "sub-01_task-clips_run-01", "cifti", 1)
    rejects(r"one run in several forms \(\S+run-01\S+, \S+run-1\S+\)", settings(root, "cifti"))


def test_events_of_one_run_in_two_spellings_are_rejected(root):
    events = file(root, "events.tsv")
    shutil.copy(events, str(events).replace("run-1", "run-01"))
    study = rejects(
        r"func: \S+run-01_events\.tsv and \S+run-1_events\.tsv hold both", settings(root)
    )
    assert [run.name for run in study.runs] == ["2"]


def test_sessions_of_similar_names_stay_apart(tmp_path):
    root = tmp_path / "bids"
    write_stimuli(root)
    for session, clips in (("1", "a"), ("01", "b")):
        folder = root / "sub-01" / f"ses-{session}" / "func"
        stem = f"sub-01_ses-{session}_task-clips"
        write_scan(folder, stem, "cifti", 1)
        write_events(folder, stem, "train", clips)
    runs = load(settings(root, "cifti")).runs
    assert [(run.name, run.trials[0].clip) for run in runs] == [
        ("ses-01", "b.mp4"),
        ("ses-1", "a.mp4"),
    ]


def test_sidecars_are_inherited_and_the_nearest_value_holds(root):
    sidecars_away(root)
    above = root / "task-clips_bold.json"
    above.write_text('{"RepetitionTime": 2, "StartTime": 0.5}')
    (root / "task-rest_bold.json").write_text('{"RepetitionTime": 9}')
    runs = load(settings(root)).runs
    assert [(run.repetition_time, run.start_time) for run in runs] == [(2.0, 0.5)] * 2
    of_subject = root / "sub-01" / "sub-01_task-clips_bold.json"
    of_subject.write_text('{"StartTime": 1}')
    of_run = file(root, "bold.json", run=2)
    of_run.write_text('{"RepetitionTime": 2.5}')
    runs = load(settings(root)).runs
    assert [(run.repetition_time, run.start_time) for run in runs] == [(2.0, 1.0), (2.5, 1.0)]
    assert runs[1].files[2:-1] == (above, of_subject, of_run)
    of_run.write_text('{"RepetitionTime": true}')
    rejects(r"run-2_bold\.json: RepetitionTime must be a number", settings(root))
    above.write_text('{"RepetitionTime": null}')
    rejects(r"task-clips_bold\.json: RepetitionTime must be a number", settings(root))


def test_of_two_sidecars_in_a_folder_the_one_of_more_entities_is_nearer(root):
    sidecars_away(root)
    file(root, "bold.json").write_text('{"RepetitionTime": 2}')
    file(root, "hemi-L_bold.json").write_text('{"RepetitionTime": 3}')
    file(root, "hemi-L_space-other_bold.json").write_text('{"RepetitionTime": 4}')
    study = rejects(r"run-2\S+json: no such file, and it should say Rep", settings(root))
    assert study.runs[0].repetition_time == 3.0
    shutil.copy(file(root, "bold.json"), file(root, "bold.func.json"))
    assert rejects(r"run-2\S+json: no such file", settings(root)).runs[0].repetition_time == 3.0


def test_events_are_inherited_and_the_nearest_table_holds(root):
    for run in (1, 2):
        file(root, "events.tsv", run=run).unlink()
    above = write_events(root, "task-clips", "train", "a")
    assert [trial.clip for trial in events_of(root, 2)] == ["a.mp4"]
    nearer = write_events(root / "sub-01", "sub-01_task-clips", "train", "b")
    write_events(root / "sub-01" / "func", "sub-01_task-clips_run-2", "test", "x")
    study = load(settings(root))
    assert [run.trials[0].clip for run in study.runs] == ["b.mp4", "x.mp4"]
    assert nearer in study.files
    assert above not in study.files


def test_the_raw_study_is_inherited_from_where_the_derivative_is_silent(tmp_path):
    raw = write_study(tmp_path / "raw", "gifti")
    root = raw / "derivatives" / "fmriprep"
    sidecar = write_scan(root / "sub-01" / "func", "sub-01_task-clips_run-1", "cifti", 1)[-1]
    file(raw, "events.tsv").unlink()
    write_events(raw, "task-clips", "train", "a")
    told = raw / "task-clips_bold.json"
    told.write_text(f'{{"RepetitionTime": {TR}, "StartTime": 1.25}}')
    (run,) = load(settings(root, "cifti")).runs
    assert (run.start_time, told in run.files) == (0.75, False)
    sidecar.write_text("{}")
    (run,) = load(settings(root, "cifti")).runs
    assert (run.repetition_time, told in run.files) == (TR, True)


@pytest.mark.parametrize("kind", ["cifti", "volume"])
def test_which_repetition_time_to_trust_can_be_said(tmp_path, kind):
    root = write_study(tmp_path / "bids", kind)
    for path in (root / "sub-01" / "func").glob("*_bold.json"):
        path.write_text('{"RepetitionTime": 2}')
    for trust, seconds in (("header", TR), ("sidecar", 2.0)):
        study = load(settings(root, kind, repetition_time=trust))
        assert [run.repetition_time for run in study.runs] == [seconds] * 2
        assert [note.rpartition("; ")[2] for note in study.notes] == [
            f"taken to be {seconds:g} s"
        ] * 2


@pytest.mark.parametrize(
    ("sidecar", "message"),
    [
        ('{"RepetitionTime": 2000}', "RepetitionTime 2000 s is implausible"),
        ('{"RepetitionTime": 0}', "RepetitionTime 0 s is implausible"),
        ('{"RepetitionTime": -2}', "RepetitionTime -2 s is implausible"),
        *(
            (f'{{"RepetitionTime": {value}}}', "RepetitionTime must be a number of seconds, is ")
            for value in ("true", "NaN", "1e999", "-Infinity", "[2]", "{}", "null", "1" * 400)
        ),
        ('{"RepetitionTime": 2, "StartTime": -4.1}', "StartTime must be within 2 repetition"),
        ('{"RepetitionTime": 2, "StartTime": NaN}', "StartTime must be a number of seconds"),
        ('{"RepetitionTime": 2, "StartTime": "1"}', "StartTime must be a number of seconds"),
        ('{"RepetitionTime": 2, "RepetitionTime": 3}', "not valid JSON .*RepetitionTime"),
        ("[2]", "must hold a JSON object"),
        ('{"a": ' + "[" * 50_000, "not valid JSON \\(nested too deeply"),
        ('{"RepetitionTime": ' + "1" * 5000 + "}", "not valid JSON "),
    ],
)
def test_sidecars_of_implausible_values(root, sidecar, message):
    file(root, "hemi-L_space-fsaverage5_bold.json").write_text(sidecar)
    study = rejects(message, settings(root))
    assert [run.name for run in study.runs] == ["2"]


def test_a_scan_may_start_before_its_clock(root):
    file(root, "hemi-L_space-fsaverage5_bold.json").write_text(
        '{"RepetitionTime": 2, "StartTime": -1.5}'
    )
    assert load(settings(root)).runs[0].start_time == -1.5


def test_a_bad_row_is_noted_once_however_many_runs_inherit_it(root):
    for run in (1, 2):
        file(root, "events.tsv", run=run).unlink()
    (root / "task-clips_events.tsv").write_text(
        HEADER + "0\t2\ttrain\ta.mp4\t1\nx\t2\ttrain\tb.mp4\t1\nn/a\t2\ttrain\tb.mp4\t1\n"
    )
    study = rejects(r"task-clips_events\.tsv: line 3: onset must be", settings(root))
    assert [[trial.clip for trial in run.trials] for run in study.runs] == [["a.mp4"]] * 2
    assert [note.partition(".tsv: ")[2] for note in study.notes] == [
        "line 4: onset is n/a, left out"
    ]


def test_captions_are_found_however_clips_are_spelled(root):
    apart = [unicodedata.normalize(form, "\u00fc.mp4") for form in ("NFC", "NFD")]
    (root / "stimuli" / apart[1]).touch()
    file(root, "events.tsv").write_text(f"{HEADER}0\t2\ttrain\t./{apart[0]}\t1\n")
    table = root / "stimuli" / "captions.tsv"
    table.write_text(f"{table.read_text()}stimuli/{apart[0]}\twith dots\n")
    study = load(settings(root))
    assert study.captions[apart[1]] == "with dots"
    assert study.videos[apart[1]].path.is_file()


def test_a_clip_whose_file_is_a_folder_or_has_no_possible_path(root):
    (root / "stimuli" / "b.mp4").unlink()
    (root / "stimuli" / "b.mp4").mkdir()
    assert lacks(settings(root))[1] == [f"not there: b.mp4 in {root / 'stimuli'}"]
    long = "/".join(["x" * 200] * 30)
    file(root, "events.tsv").write_text(f"{HEADER}0\t2\ttrain\t{long}\t1\n")
    [line] = lacks(settings(root))[1]
    assert line.startswith(f"not there: {'x' * 200} in ")


def test_a_study_without_any_video_is_rejected(root):
    for path in (root / "stimuli").glob("*.mp4"):
        path.unlink()
    with pytest.raises(DataError, match=r"a\.mp4: no such video file, nor is any of the 4 "):
        load(settings(root))


def test_a_surface_may_state_its_repetition_time_in_milliseconds(root):
    path = file(root, "hemi-L_space-fsaverage5_bold.func.gii")
    image = nibabel.load(path)
    image.darrays[0].meta["TimeStep"] = str(1000 * TR)
    nibabel.save(image, path)
    study = load(settings(root))
    assert (study.runs[0].repetition_time, study.notes) == (TR, ())
    assert study.runs[0].sides == (14, 16)
    image.darrays[0].meta["TimeStep"] = "1000"  # the default of a converter
    nibabel.save(image, path)
    (note,) = load(settings(root)).notes
    assert note.endswith("its header says TR 1 s and its sidecar 1.5 s; taken to be 1.5 s")
    image.darrays[0].meta["TimeStep"] = "800"
    nibabel.save(image, path)
    rejects(r"hemi-L\S+: its header says TR 0\.8 s and its sidecar 1\.5 s", settings(root))
