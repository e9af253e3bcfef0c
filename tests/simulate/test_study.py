import csv
import hashlib
import json
import shutil
import threading
import time

import nibabel
import numpy as np
import pytest

from glfa_jax.config import Data, Simulation
from glfa_jax.data import DataError
from glfa_jax.data.layouts import Problems, Run
from glfa_jax.data.layouts.reading import read_study
from glfa_jax.data.video import read_all
from glfa_jax.simulate import stimuli, study
from glfa_jax.simulate.__main__ import command as main
from glfa_jax.simulate.cortex import visual_cortex
from tests.test_lock import hold

TINY = Simulation(subjects=2, train_runs=1, test_runs=1, clips_per_run=4)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated") / "study"
    study.write_study(TINY, folder, progress=False)
    return folder


def _runs(root, *subjects: str) -> tuple[Run, ...]:
    data = Data(root=root, store=root / "unused.zarr", subjects=subjects)
    return read_study(data, Problems(skip=False)).runs


def _series(run: Run) -> np.ndarray:
    return np.concatenate(list(run.blocks()))


@pytest.fixture(scope="module")
def runs(root):
    return _runs(root, "01", "02")


def _table(path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_the_ordinary_reader_reads_it(root, runs):
    assert [(run.subject, run.name, run.split) for run in runs] == [
        (subject, name, split)
        for subject in ("01", "02")
        for name, split in (("01", "train"), ("02", "test"), ("03", "test"))
    ]
    assert {run.repetition_time for run in runs} == {1.0}
    for run in runs:
        assert [trial.onset for trial in run.trials] == [4.0, 8.0, 12.0, 16.0]
        assert {trial.duration for trial in run.trials} == {2.0}
        series = _series(run)
        assert series.shape == (28, 20484)  # 4 s lead, 4 clips of 2 s and 3 gaps, 10 s tail
    shown = [sorted(trial.clip for trial in run.trials) for run in runs]
    assert shown[1] == shown[2]
    assert not set(shown[0]) & set(shown[1])
    assert shown[:3] == shown[3:]
    assert [run.trials[0].repeat for run in runs[:3]] == [1, 1, 2]


def test_bold_is_whole_numbers_near_the_baseline_and_zero_off_the_region(runs):
    cortex = visual_cortex()
    inside = np.isin(np.arange(20484), cortex.vertices)
    for run in runs:
        series = _series(run)
        assert (series[:, ~inside] == 0).all()
        seen = series[:, inside].astype(np.float64)
        np.testing.assert_array_equal(seen, np.rint(seen))
        assert 9000 < seen.mean() < 11000
        assert seen.mean(axis=0).std() > 300  # z-scoring has something to do
        change = (seen.std(axis=0) / seen.mean(axis=0)).mean()
        assert 0.008 < change < 0.04


def test_repeats_share_the_signal_and_not_the_noise(tmp_path):
    """With hardly any noise a clip's answer repeats; runs differ by the order of the clips."""
    quiet = TINY.model_copy(update={"subjects": 1, "noise": 0.0, "gap_seconds": 30.0})
    study.write_study(quiet, tmp_path / "study", progress=False)
    first, second = _runs(tmp_path / "study", "01")[1:]
    answers = []
    for run in (first, second):
        series = _series(run)[:, visual_cortex().vertices]
        onsets = {trial.clip: int(trial.onset) for trial in run.trials}
        answers.append({clip: series[at + 4 : at + 9] for clip, at in onsets.items()})
    for clip, answer in answers[0].items():
        assert np.abs(answer - answers[1][clip]).max() <= 2  # rounding, and the tail of 30 s ago
        others = [np.abs(answer - answers[1][other]).max() for other in answers[1] if other != clip]
        assert min(others) > 50


def test_gifti_says_what_it_holds(root):
    path = root / "sub-01/func/sub-01_task-clips_run-01_hemi-R_space-fsaverage5_bold.func.gii"
    image = nibabel.load(path)
    assert image.meta["AnatomicalStructurePrimary"] == "CortexRight"
    assert image.meta["TimeStep"] == "1000.0"
    assert {array.intent for array in image.darrays} == {2001}  # NIFTI_INTENT_TIME_SERIES
    assert image.darrays[0].data.dtype == np.float32
    again = nibabel.GiftiImage.from_bytes(image.to_bytes())
    for ours, theirs in zip(image.darrays, again.darrays, strict=True):
        np.testing.assert_array_equal(ours.data, theirs.data)


def test_videos_decode_to_what_was_rendered_and_captions_describe_them(root):
    rows = _table(root / "stimuli" / "captions.tsv")
    assert len(rows) == 8
    for row in rows:
        scene = stimuli.Scene(
            **{key: row[key] for key in ("category", "colour", "motion", "background", "size")},
            **{key: float(row[key]) for key in ("x", "y", "phase")},
        )
        assert f"{scene.colour} {scene.category}" in row["caption"]
        error = read_all(root / "stimuli" / row["stim_file"]).astype(float) - stimuli.render(scene)
        assert 10 * np.log10(255**2 / np.mean(error**2)) > 24  # dB; colour is at half resolution
        assert np.abs(error.mean(axis=(0, 1, 2))).max() < 4


def test_train_and_test_hold_different_combinations():
    rng = np.random.default_rng(0)
    simulation = Simulation()
    train = simulation.train_runs * simulation.clips_per_run
    seen = {
        (s.category, s.colour, s.motion)
        for s in (stimuli.sample_scene(rng, i) for i in range(train))
    }
    first = -(-train // 64) * 64
    new = [stimuli.sample_scene(rng, first + i) for i in range(80)]
    assert not seen & {(s.category, s.colour, s.motion) for s in new}


def _checksum(root) -> str:
    """Of names, texts and numbers; not of what depends on versions of encoders."""
    total = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        total.update(str(path.relative_to(root)).encode())
        if path.suffix == ".gii":
            series = np.stack([array.data for array in nibabel.load(path).darrays])
            total.update(np.rint(series).astype("<i4").tobytes())
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                for name in arrays:
                    values = np.round(arrays[name].astype("<f8") + 0.0, 6)
                    total.update(name.encode() + values.tobytes())
        elif path.name == "dataset_description.json":
            about = json.loads(path.read_text(encoding="utf-8"))
            total.update(json.dumps(about["GeneratedBy"][0]["Settings"]).encode())
        elif path.is_file() and path.suffix != ".mp4":
            total.update(path.read_bytes())
    return total.hexdigest()


def test_the_first_world_is_what_it_was_when_it_was_the_only_one(root):
    """Results in the documents were measured in it; the checksum is older than the others."""
    found = _checksum(root)
    assert found == "a823a67980a2db0d59d1b44834d7dda5785dc9e2fe13654625a24563d5254f1f"


def test_the_ground_truth_lies_beside(root):
    cortex = visual_cortex()
    with np.load(root / "ground_truth" / "canonical.npz") as truth:
        np.testing.assert_array_equal(truth["vertices"], cortex.vertices)
        np.testing.assert_allclose(truth["canonical"], cortex.canonical)
    for name in ("01", "02"):
        with np.load(root / "ground_truth" / f"sub-{name}.npz") as truth:
            assert truth["displacement"].shape == (len(cortex.vertices), 2)
            size = np.sqrt((truth["displacement"] ** 2).sum(axis=1).mean())
            assert size == pytest.approx(TINY.displacement)
            assert len(truth["patch_target"]) == len(truth["patch_source"]) > 0
            assert 0 < truth["noise_ceiling"].min() < truth["noise_ceiling"].max() < 1
            assert truth["gain"].shape == truth["noise_ceiling"].shape


def test_a_complete_study_is_left_alone_and_other_settings_are_rejected(root):
    marker = root / "dataset_description.json"
    before = marker.stat().st_mtime_ns
    study.write_study(TINY, root, progress=False)
    assert marker.stat().st_mtime_ns == before
    with pytest.raises(DataError, match=r"other settings \(noise is 1.5 there and 9.0 here\)"):
        study.write_study(TINY.model_copy(update={"noise": 9.0}), root, progress=False)


def test_a_folder_of_something_else_is_rejected(tmp_path):
    with pytest.raises(DataError, match="is no simulated study"):
        study.write_study(TINY, tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_study_leaves_nothing_and_is_written_anew(tmp_path, monkeypatch, root):
    target = tmp_path / "study"
    with monkeypatch.context() as patch:
        patch.setattr(study, "draw_subject", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            study.write_study(TINY, target, progress=False)
    assert not list(tmp_path.iterdir())
    study.write_study(TINY, target, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["study"]
    # The same settings give the same bytes (videos are left to the encoder).
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.suffix in (".gii", ".tsv", ".json"):
            assert (target / path.relative_to(root)).read_bytes() == path.read_bytes(), path


def test_a_second_process_waits_and_takes_what_the_first_has_written(tmp_path, root, capsys):
    target = tmp_path / "study"
    first = hold(tmp_path / ".study.working")
    try:
        second = threading.Thread(target=study.write_study, args=[TINY, target])
        second.start()
        while "waiting for its end" not in capsys.readouterr().out:
            assert second.is_alive()
            time.sleep(0.05)
        shutil.copytree(root, target)
    finally:
        first.kill()
        first.wait()
    second.join(timeout=60)
    assert "simulate" not in capsys.readouterr().err  # no bar: nothing was written
    assert [path.name for path in tmp_path.iterdir()] == ["study"]


@pytest.mark.parametrize("settings", [5, None, [], "x"])
def test_a_description_that_makes_no_sense_is_no_simulated_study(tmp_path, settings):
    about = {"GeneratedBy": [{"Name": study.GENERATOR, "Settings": settings}]}
    (tmp_path / "dataset_description.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match=f"{tmp_path.name}: "):
        study.write_study(TINY, tmp_path, progress=False)


def test_options_that_did_not_exist_then_are_at_their_defaults(tmp_path, root):
    about = json.loads((root / "dataset_description.json").read_text())
    settings = about["GeneratedBy"][0]["Settings"]
    del settings["seed"]
    (tmp_path / "dataset_description.json").write_text(json.dumps(about))
    study.write_study(TINY, tmp_path, progress=False)
    with pytest.raises(DataError, match=r"other settings \(seed is 0 there and 1 here\)"):
        study.write_study(TINY.model_copy(update={"seed": 1}), tmp_path, progress=False)


def test_the_command_writes_a_study_and_rejects_nonsense_in_one_sentence(tmp_path, capsys):
    options = ["--subjects", "1", "--train-runs", "1", "--test-runs", "1", "--clips-per-run", "2"]
    assert main(["--root", str(tmp_path / "a"), *options]) == 0
    settings = json.loads((tmp_path / "a" / "dataset_description.json").read_text())
    assert settings["GeneratedBy"][0]["Settings"]["clips_per_run"] == 2
    assert main(["--root", str(tmp_path / "b"), "--noise", "-1"]) == 2
    assert "error: --noise: Input should be greater than or equal to 0" in capsys.readouterr().err
    assert main(["--root", str(tmp_path / "b"), "--size", "40"]) == 2
    assert "simulation.size: must be a multiple of 16, is 40" in capsys.readouterr().err
    assert main(["--root", str(tmp_path / "b"), "--own-clips", "02", "07"]) == 2
    assert "error: own_clips: 07 is none of 01, 02, 03" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
