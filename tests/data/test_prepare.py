"""From a study on disk to the store: values, reuse, and every way to fail."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from glfa_jax import config
from glfa_jax.data import DataError, flatmap, look, pipeline, prepare
from glfa_jax.data.store import Store
from glfa_jax.data.surfaces import fsaverage5
from tests.data.conftest import (
    REPETITION_TIME,
    RUNS,
    VOLUMES,
    series_of,
    settings,
    stem,
    write_events,
    write_gifti,
)
from tests.data.scans import truncate


def window(subject, run, first):
    """The window that starts at a volume, computed the plain way."""
    cortex = flatmap.build(fsaverage5(), map_size=32)
    maps = cortex.to_map(series_of(subject, run).astype(np.float64))
    spread = maps.std(axis=0, ddof=1)
    z = (maps - maps.mean(axis=0)) / np.where(cortex.mask, spread, 1)
    return np.where(cortex.mask, z, 0)[first : first + 3]


def test_samples_are_the_lagged_z_scored_windows(store):
    assert store.attributes.clips["train"] == [
        "a.mp4", "b.mp4", "c.mp4", "d.mp4", "a.mp4", "e.mp4",
    ]  # fmt: skip
    fmri = store.fmri("train", range(6), subjects=["01", "02"]).astype(np.float64)
    # Lag 4 s at TR 2 s: two volumes; the last trial starts at 12.9 s, nearest volume 8.
    for clip, (run, first) in enumerate(
        [("01", 2), ("01", 5), ("01", 8), ("02", 2), ("02", 5), ("02", 8)]
    ):
        for s, subject in enumerate(("01", "02")):
            np.testing.assert_allclose(fmri[clip, s], window(subject, run, first), atol=3e-3)


def test_test_repeats_are_averaged(store):
    assert store.attributes.clips["test"] == ["x.mp4", "y.mp4"]
    fmri = store.fmri("test", [0, 1], subjects=["02"])[:, 0]
    # Onsets 9.2 s and 1.0 s: volumes 6.6 -> 7 and 2.5 -> the earlier, 2.
    x = (window("02", "03", 2) + window("02", "04", 7)) / 2
    y = (window("02", "03", 6) + window("02", "04", 2)) / 2
    np.testing.assert_allclose(fmri, [x, y], atol=3e-3)


def test_runs_are_z_scored_and_zero_off_the_mask(store):
    fmri = store.fmri("train", range(6), subjects=["01", "02"])
    assert not fmri[..., ~store.mask].any()
    z = window("01", "01", 0)
    assert z.shape[0] == 3
    assert np.abs(fmri).max() < (VOLUMES - 1) / np.sqrt(VOLUMES)  # the largest z-score there is


def test_average_is_over_train_samples_only(store):
    fmri = store.fmri("train", range(6), subjects=["01", "02"]).astype(np.float64)
    np.testing.assert_allclose(store.average(subjects=["02"]), fmri[:, 1].mean(axis=0), atol=1e-3)
    both = store.average(subjects=["01", "02"])
    np.testing.assert_allclose(both, fmri.mean(axis=(0, 1)), atol=1e-3)


def test_videos_and_captions_belong_to_their_clips(store):
    video = store.video("train", range(6))
    assert video.shape == (6, 2, 16, 16, 3)
    brightness = video.mean(axis=(2, 3, 4))
    # Clip number n shows 30 n + 20 + 10 i in frame i of 4; of each half one frame is taken.
    np.testing.assert_allclose(brightness[:, 0], [30, 60, 90, 120, 30, 150], atol=4)
    np.testing.assert_allclose(brightness[:, 1] - brightness[:, 0], 20, atol=4)
    assert store.attributes.captions["train"][1] == "a small red ball b"


def test_provenance_names_every_source_file(store, study):
    files = store.attributes.provenance["files"]
    on_disk = {str(p.relative_to(study)) for p in study.rglob("*") if p.is_file()}
    right_sidecars = {name for name in on_disk if name.endswith("bold.json") and "hemi-R" in name}
    assert set(files) == on_disk - right_sidecars
    assert all(len(entry["sha256"]) == 64 and entry["size"] > 0 for entry in files.values())


def test_reuse_and_rejection(store, study, capsys):
    before = store.path.stat().st_mtime_ns
    again = prepare.prepare(settings(study, store.path))
    assert "up to date, reused" in capsys.readouterr().out
    assert again.attributes == store.attributes
    assert store.path.stat().st_mtime_ns == before
    with pytest.raises(DataError, match=r"other settings \(window\); remove it or choose another"):
        prepare.prepare(settings(study, store.path, window=2))


def test_a_store_from_before_an_option_fits_the_option_left_out(store, study):
    assert "repetition_time" not in store.attributes.provenance["settings"]
    prepare.prepare(settings(study, store.path, repetition_time="agreeing"), progress=False)
    with pytest.raises(DataError, match=r"other settings \(repetition_time\); remove it"):
        prepare.prepare(settings(study, store.path, repetition_time="sidecar"))


def test_main_prints_a_summary_or_one_sentence(study, tmp_path, capsys):
    data = settings(study, tmp_path / "b.zarr").model_dump(mode="json")
    tree = {
        "name": "t", "run_dir": "r", "foundation": "f", "data": data,
        "protocol": {"train_subjects": ["01"], "test_subjects": ["02"]},
    }  # fmt: skip
    (tmp_path / "c.yaml").write_text(json.dumps(tree))
    command = ["--config", str(tmp_path / "c.yaml"), "--set", "data.map_size=16"]
    assert prepare.command([*command, "--set", "data.space=mars"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert "has no scans sub-01_task-clips_*space-mars_*bold" in captured.err
    assert captured.err.count("\n") == 1
    assert prepare.command(command) == 0
    out = capsys.readouterr().out
    assert "2 subjects, samples: 6 train, 2 test" in out
    assert "TR 2 s, lag 4 s (2 volumes)" in out
    assert "sub-02 train: 2 runs, 32 volumes, 6 samples, 0 missing" in out
    assert len(Store.open(tmp_path / "b.zarr").mask) == 16


@pytest.fixture
def broken(study, tmp_path):
    """A study of sub-01's own to damage, and the check that nothing comes of it."""
    root = tmp_path / "bids"
    shutil.copytree(study / "stimuli", root / "stimuli")
    shutil.copytree(study / "sub-01", root / "sub-01")
    return root


def rejects(root, message):
    where = root.parent / "out"
    where.mkdir()
    with pytest.raises(DataError, match=message) as caught:
        prepare.prepare(settings(root, where / "a.zarr", subjects=("01",)), progress=False)
    assert "\n" not in str(caught.value)
    assert {path.name for path in where.iterdir()} <= {".a.zarr.scratch"}  # what was finished


def scan(root, run="02", side="L"):
    return Path(f"{stem(root, '01', run)}_hemi-{side}_space-fsaverage5_bold.func.gii")


def test_missing_events(broken):
    Path(f"{stem(broken, '01', '03')}_events.tsv").unlink()
    rejects(broken, "run-03_events.tsv: no such file; .*; with data.on_error: skip, the rest is")


def test_missing_subject(broken):
    shutil.rmtree(broken / "sub-01")
    rejects(broken, r"sub-01: has no scans sub-01_task-clips_\*")


@pytest.mark.parametrize("part", [0, 0.02, 0.5, 0.99])
def test_truncated_gifti(broken, part):
    whole = scan(broken).read_bytes()
    scan(broken).write_bytes(whole[: int(len(whole) * part)])
    rejects(broken, r"run-02_hemi-L_\S+gii: truncated or no GIFTI")


def test_video_that_does_not_decode(broken):
    clip = broken / "stimuli" / "c.mp4"
    clip.write_bytes(clip.read_bytes()[:400])
    rejects(broken, r"c\.mp4: truncated or no video")


def test_clip_without_caption(broken):
    table = broken / "stimuli" / "captions.tsv"
    table.write_text("".join(line for line in table.open() if not line.startswith("d.mp4")))
    rejects(broken, r"captions\.tsv: has no caption for clip d\.mp4")


def test_what_is_not_there_is_said_once_and_kept(broken, capsys):
    (broken / "stimuli" / "d.mp4").unlink()
    scan(broken, "03", "R").unlink()
    data = settings(broken, broken.parent / "a.zarr", subjects=("01",))
    made = prepare.prepare(data)
    lines = (
        "not there: run 03 (right hemisphere) of subject 01",
        f"not there: d.mp4 in {broken / 'stimuli'}",
    )
    assert tuple(made.attributes.notes) == lines
    assert "d.mp4" not in made.attributes.clips["train"]
    assert [run["name"] for run in made.attributes.runs] == ["01", "02", "04"]
    out = capsys.readouterr().out
    assert [out.count(line) for line in lines] == [1, 1]
    assert out.startswith(lines[0])  # before anything long begins
    prepare.prepare(data)
    again = capsys.readouterr().out
    assert "not there" not in again
    assert f"noted when it was prepared: 2, see python -m glfa_jax.data.look {data.store}" in again
    page = data.store.with_suffix(".html")
    assert look.command([str(data.store), "--clips", "0"]) == 0
    assert all(line in page.read_text() for line in lines)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_fmri(broken, value):
    series = series_of("01", "02")
    used = flatmap.build(fsaverage5(), map_size=32).used
    vertices = 10_242 + np.flatnonzero(used[10_242:])[:3]
    series[5, vertices] = value
    write_gifti(scan(broken, side="R"), series[:, 10_242:])
    rejects(broken, r"run-02_hemi-R_\S+gii: not finite at 3 places of the region in volume 5 ")


def test_non_finite_values_outside_the_region_do_not_matter(broken, store):
    series = series_of("01", "02")
    series[:, ~fsaverage5().region] = np.nan
    write_gifti(scan(broken), series[:, :10_242])
    data = settings(broken, broken.parent / "a.zarr", subjects=("01",))
    fmri = prepare.prepare(data, progress=False).fmri("train", range(6), subjects=["01"])
    np.testing.assert_array_equal(fmri, store.fmri("train", range(6), subjects=["01"]))


def test_hemispheres_of_different_length(broken):
    write_gifti(scan(broken, side="R"), series_of("01", "02")[:-1, 10_242:])
    rejects(broken, r"hemispheres of different length, 16 volumes in \S+ and 15 in \S+hemi-R")


def test_wrong_surface(broken):
    write_gifti(scan(broken), series_of("01", "02")[:, :642])
    rejects(broken, r"642 \+ 10242 values a volume, the flat map takes 10242 \+ 10242")


def test_events_beyond_the_run(broken):
    split, trials = RUNS["02"]
    late = [*trials, ("b.mp4", VOLUMES * REPETITION_TIME + 1, 2)]
    write_events(Path(f"{stem(broken, '01', '02')}_events.tsv"), split, late)
    rejects(broken, r"sub-01 run 02: a trial starts at 33 s, beyond the end of the run at 32 s")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "x\t2\ttrain\ta.mp4\t3",
            "line 2: onset must be a number of seconds from -86400 to 86400, is 'x'",
        ),
        ("0\t2\ttrain\t../a.mp4\t3", "line 2: stim_file must name a file inside stimuli/"),
        ("0\t2\trest\ta.mp4\t3", "trial_type must be train or test throughout, is rest"),
    ],
)
def test_events_that_make_no_sense(broken, row, message):
    header = "onset\tduration\ttrial_type\tstim_file\trepeat\n"
    Path(f"{stem(broken, '01', '02')}_events.tsv").write_text(f"{header}{row}\n")
    rejects(broken, rf"run-02_events\.tsv: {message}")


def test_a_showing_needs_its_own_repeat_number(broken):
    split, trials = RUNS["02"]
    write_events(Path(f"{stem(broken, '01', '02')}_events.tsv"), split, [*trials, ("a.mp4", 9, 1)])
    rejects(broken, r"sub-01 run 02: clip a\.mp4, repeat 1 was shown before to the subject")


def test_a_clip_in_both_splits_is_rejected(broken):
    split, trials = RUNS["04"]
    write_events(Path(f"{stem(broken, '01', '04')}_events.tsv"), split, [*trials, ("c.mp4", 12, 1)])
    rejects(broken, r"clip c\.mp4 is shown in train and in test runs")


def test_repetition_times_must_agree(broken):
    sidecar = Path(f"{stem(broken, '01', '02')}_hemi-L_space-fsaverage5_bold.json")
    sidecar.write_text('{"RepetitionTime": 1.5}')
    rejects(broken, r"repetition time 1\.5 s, but 2\.0 s in")
    shutil.rmtree(broken.parent / "out")
    sidecar.write_text("{}")
    rejects(broken, "must be JSON with RepetitionTime in seconds")


def test_windows_cut_short_are_marked_missing(broken, capsys):
    split, trials = RUNS["02"]
    trials = [*trials[:2], ("e.mp4", 26.0, 1)]  # volumes 15 to 17 of 16
    write_events(Path(f"{stem(broken, '01', '02')}_events.tsv"), split, trials)
    store = prepare.prepare(settings(broken, broken.parent / "a.zarr", subjects=("01",)))
    present = store.present("train", subjects=["01"])[:, 0]
    np.testing.assert_array_equal(present, [1, 1, 1, 1, 1, 0])
    assert not store.fmri("train", [5], subjects=["01"]).any()
    assert "5 samples, 1 missing, 1 trials cut short" in capsys.readouterr().out


def test_constant_pixels_become_zero(broken):
    series = series_of("01", "02")
    series[:, :10_242] = 7.25
    write_gifti(scan(broken), series[:, :10_242])
    data = settings(broken, broken.parent / "a.zarr", subjects=("01",))
    fmri = prepare.prepare(data, progress=False).fmri("train", [3], subjects=["01"])
    left = flatmap.build(fsaverage5(), map_size=32).to_map(np.arange(20_484) < 10_242.0) > 0
    assert not fmri[..., left].any()
    assert np.isfinite(fmri).all()
    assert fmri.any()


def test_a_changed_source_is_noticed(broken):
    data = settings(broken, broken.parent / "a.zarr", subjects=("01",))
    prepare.prepare(data, progress=False)
    with (broken / "stimuli" / "captions.tsv").open("a") as table:
        table.write("more.mp4\tmore\n")
    with pytest.raises(DataError, match=r"captions\.tsv has changed since it was prepared"):
        prepare.prepare(data, progress=False)


def test_start_time_shifts_the_volumes(broken):
    sidecar = Path(f"{stem(broken, '01', '01')}_hemi-L_space-fsaverage5_bold.json")
    sidecar.write_text(json.dumps({"RepetitionTime": REPETITION_TIME, "StartTime": 1.1}))
    data = settings(broken, broken.parent / "a.zarr", subjects=("01",))
    fmri = prepare.prepare(data, progress=False).fmri("train", [0, 3], subjects=["01"])[:, 0]
    # 4 s after the first onset volume 1 shows 3.1 s and volume 2 shows 5.1 s.
    np.testing.assert_allclose(fmri[0], window("01", "01", 1), atol=3e-3)
    np.testing.assert_allclose(fmri[1], window("01", "02", 2), atol=3e-3)
    sidecar.write_text(json.dumps({"RepetitionTime": REPETITION_TIME, "StartTime": 5}))
    with pytest.raises(
        DataError, match="StartTime must be within 2 repetition times of 2 s, is 5 s"
    ):
        prepare.prepare(settings(broken, broken.parent / "b.zarr", subjects=("01",)))


def test_a_simulated_study_is_made_and_prepared(tmp_path):
    simulation = config.Simulation(
        subjects=1, train_runs=1, test_runs=1, clips_per_run=4, test_repeats=2, size=32
    )
    data = settings(
        tmp_path / "bids",
        tmp_path / "a.zarr",
        subjects=("01",),
        simulation=simulation,
        lag_seconds=4.0,
        resolution=(32, 32),
        frames=6,
    )
    store = prepare.prepare(data, progress=False)
    assert store.attributes.repetition_time == simulation.repetition_time
    for split in ("train", "test"):
        assert store.num_clips(split) == 4
        assert store.present(split, subjects=["01"]).all()
        fmri = store.fmri(split, range(4), subjects=["01"])
        assert np.isfinite(fmri).all()
        assert fmri[..., store.mask].std() > 0.3
    # As an earlier version wrote it down, so that identities stay the same.
    assert "patchwise" not in store.attributes.provenance["settings"]["simulation"]
    other = simulation.model_copy(update={"noise": 0.5})
    with pytest.raises(DataError, match="simulated with other settings"):
        prepare.prepare(
            data.model_copy(update={"simulation": other, "store": tmp_path / "b.zarr"}),
            progress=False,
        )
    patchwise = simulation.model_copy(update={"patchwise": 0.5})
    with pytest.raises(DataError, match=r"other settings \(simulation\)"):
        prepare.prepare(data.model_copy(update={"simulation": patchwise}), progress=False)
    assert not (tmp_path / "b.zarr").exists()


def raw(subject, run):
    cortex = flatmap.build(fsaverage5(), map_size=32)
    return cortex.to_map(series_of(subject, run).astype(np.float64)), cortex.mask


def test_quality_pictures_are_of_the_raw_signal(store):
    for subject in ("01", "02"):
        means, snrs, courses = [], [], []
        for run in RUNS:
            maps, mask = raw(subject, run)
            means.append(maps.mean(axis=0))
            snrs.append(maps.mean(axis=0) / np.where(mask, maps.std(axis=0, ddof=1), 1))
            level = maps[:, mask].mean(axis=1)
            courses.append(100 * (level / level.mean() - 1))
        np.testing.assert_allclose(store.quality("mean", subject), np.mean(means, 0), rtol=1e-5)
        np.testing.assert_allclose(store.quality("tsnr", subject), np.mean(snrs, 0), rtol=1e-4)
        course = store.quality("course", subject)
        np.testing.assert_allclose(course, np.concatenate(courses), atol=1e-4)
        assert np.abs(course).max() > 0.01
    assert [run["volumes"] for run in store.attributes.runs] == 8 * [VOLUMES]
    assert [run["name"] for run in store.attributes.runs] == 2 * list(RUNS)
    assert [run["split"] for run in store.attributes.runs] == 2 * [s for s, _ in RUNS.values()]
    assert store.attributes.clip_seconds == 2.0
    assert (store.attributes.layout, store.attributes.space) == ("bids", "fsaverage5")
    assert store.attributes.notes == []


def test_reliability_is_the_correlation_of_odd_and_even_repeats(store):
    mask = store.mask
    for subject in ("01", "02"):
        odd = np.concatenate([window(subject, "03", 2), window(subject, "03", 6)])[:, mask]
        even = np.concatenate([window(subject, "04", 7), window(subject, "04", 2)])[:, mask]
        expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(odd.T, even.T, strict=True)]
        reliability = store.quality("reliability", subject)
        # The signal is around 1000 in float32, where it moves by 10.
        np.testing.assert_allclose(reliability[mask], expected, atol=1e-4)
        assert not reliability[~mask].any()
    assert store.attributes.repeats == {"01": 2, "02": 2}


def test_a_subject_without_repeats_has_no_reliability(broken):
    split = RUNS["04"][0]
    once = [("z.mp4", 1.0, 1)]
    shutil.copy(broken / "stimuli" / "y.mp4", broken / "stimuli" / "z.mp4")
    with (broken / "stimuli" / "captions.tsv").open("a") as table:
        table.write("z.mp4\tone more\n")
    write_events(Path(f"{stem(broken, '01', '04')}_events.tsv"), split, once)
    store = prepare.prepare(settings(broken, broken.parent / "a.zarr", subjects=("01",)))
    assert store.attributes.repeats == {"01": 1}
    assert not store.quality("reliability", "01").any()


def test_demeaned_signals_have_no_per_cent(broken):
    for run in RUNS:
        series = series_of("01", run)
        series -= series.mean(axis=0)
        for side, part in (("L", series[:, :10_242]), ("R", series[:, 10_242:])):
            write_gifti(scan(broken, run, side), -np.abs(part) if run == "01" else 0 * part)
    store = prepare.prepare(settings(broken, broken.parent / "a.zarr", subjects=("01",)))
    assert not store.quality("course", "01").any()
    assert not store.quality("reliability", "01").any()
    assert np.isfinite(store.quality("tsnr", "01")).all()


def training_numbers(store):
    """Everything that any training reads, bit for bit."""
    attributes, subjects = store.attributes, list(store.attributes.subjects)
    every = range(store.num_clips("train"))
    stream = pipeline.volumes(store, subjects=subjects, batch_size=4, seed=0)
    return [
        json.dumps([attributes.clips["train"], attributes.captions["train"]]).encode(),
        store.mask.tobytes(),
        store.fmri("train", every, subjects=subjects).tobytes(),
        store.present("train", subjects=subjects).tobytes(),
        store.video("train", every).tobytes(),
        *(store.average(subjects=[subject]).tobytes() for subject in subjects),
        *(next(stream)["fmri"].tobytes() for _ in range(12)),
    ]


def test_no_number_of_training_depends_on_test_runs(broken, tmp_path):
    """Other test scans, events, repeats and one run less: training stays the same, bit for bit."""
    one = prepare.prepare(settings(broken, tmp_path / "a.zarr", subjects=("01",)))
    for side in "LR":
        write_gifti(scan(broken, "03", side), 500 + 99 * series_of("02", "01")[:, :10_242])
    for file in broken.glob("sub-01/func/*run-04*"):
        file.unlink()
    write_events(
        Path(f"{stem(broken, '01', '03')}_events.tsv"), "test", [("y.mp4", 3.0, 5), ("x.mp4", 7, 1)]
    )
    other = prepare.prepare(settings(broken, tmp_path / "b.zarr", subjects=("01",)))
    assert (
        one.fmri("test", [0], subjects=["01"]) != other.fmri("test", [0], subjects=["01"])
    ).any()
    before, after = training_numbers(one), training_numbers(other)
    assert [a == b for a, b in zip(before, after, strict=True)] == [True] * len(before)


def damaged(study, root):
    """A study of both subjects where a run, a video and all training of a subject are damaged."""
    shutil.copytree(study, root)
    scan(root, "02", "R").write_bytes(b"no scan")
    (root / "stimuli" / "b.mp4").write_bytes(b"no film")
    for run in ("01", "02"):
        write_events(
            Path(f"{stem(root, '02', run)}_events.tsv"), "train", [("a.mp4", 99.0, int(run))]
        )
    return root


def test_errors_are_skipped_and_noted_when_asked(study, store, tmp_path, capsys):
    root = damaged(study, tmp_path / "bids")
    data = settings(root, tmp_path / "a.zarr", subjects=("01", "02", "03"), on_error="skip")
    made = prepare.prepare(data)
    out = capsys.readouterr().out
    notes = made.attributes.notes
    for sentence in (
        "sub-03: has no scans",
        "run-02_hemi-R_space-fsaverage5_bold.func.gii: truncated or no GIFTI",
        "b.mp4: truncated or no video",
        "sub-02 run 01: a trial starts at 99 s",
        "sub-02: has no complete train sample",
    ):
        assert [sentence in note for note in notes].count(True) == 1
        assert out.count(sentence) == 1
    assert out.count("  warning: ") == len(notes)
    assert made.attributes.subjects == ("01",)
    assert made.attributes.clips == {"train": ["a.mp4", "c.mp4"], "test": ["x.mp4", "y.mp4"]}
    # What is left is what it is without the damage.
    np.testing.assert_array_equal(
        made.fmri("train", [0, 1], subjects=["01"]), store.fmri("train", [0, 2], subjects=["01"])
    )
    np.testing.assert_array_equal(made.video("train", [0, 1]), store.video("train", [0, 2]))
    np.testing.assert_array_equal(
        made.fmri("test", [0, 1], subjects=["01"]), store.fmri("test", [0, 1], subjects=["01"])
    )
    files = made.attributes.provenance["files"]
    assert not [name for name in files if "b.mp4" in name or "run-02" in name or "sub-02" in name]
    prepare.prepare(data)
    again = capsys.readouterr().out
    assert "up to date, reused" in again
    assert "warning" not in again
    assert f"noted when it was prepared: {len(notes)}, see " in again


def test_exchanged_hemispheres_are_in_the_notes(broken):
    mesh = fsaverage5()
    for side, other in ((0, mesh.right), (1, mesh.left)):
        half = series_of("01", "02")[:, 10_242 * side : 10_242 * (side + 1)]
        write_gifti(scan(broken, side="LR"[side]), np.where(other.on_flat, half, 0))
    data = settings(broken, broken.parent / "a.zarr", subjects=("01",))
    notes = prepare.prepare(data, progress=False).attributes.notes
    assert len(notes) == 2
    assert notes[0].startswith(f"{scan(broken)}: seems to hold the right hemisphere instead")
    assert notes[1].startswith(f"{scan(broken, side='R')}: seems to hold the left hemisphere")


def test_notes_are_lines_that_a_terminal_can_show(broken, capsys):
    with Path(f"{stem(broken, '01', '02')}_events.tsv").open("a") as events:
        events.write('8\t1\t"grey\x1b[2J\nscreen"\tn/a\tn/a\n')
    made = prepare.prepare(settings(broken, broken.parent / "a.zarr", subjects=("01",)))
    [note] = made.attributes.notes
    assert note.endswith(r"left out: grey\u001b[2J screen (1)")
    assert f"  warning: {note}\n" in capsys.readouterr().out


def test_nothing_useful_left_is_an_error_even_when_skipping(broken):
    for file in broken.glob("sub-01/func/*hemi-L*.gii"):
        truncate(file, 0.5)  # its head is whole
    data = settings(broken, broken.parent / "a.zarr", subjects=("01",), on_error="skip")
    with pytest.raises(DataError, match="no usable subject is left"):
        prepare.prepare(data, progress=False)
    assert [path.name for path in broken.parent.iterdir() if "zarr" in path.name] == [
        ".a.zarr.scratch"
    ]
