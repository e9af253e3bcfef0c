"""A study of two subjects on disk, as small as the reader takes it."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from glfa_jax import config
from glfa_jax.data.video import write_mp4
from glfa_jax.preparation import prepare

REPETITION_TIME = 2.0
VOLUMES = 16
# Runs: split and the trials as (clip, onset, repeat).
RUNS = {
    "01": ("train", [("a.mp4", 0.0, 1), ("b.mp4", 6.0, 1), ("c.mp4", 12.0, 1)]),
    "02": ("train", [("d.mp4", 0.0, 1), ("a.mp4", 6.0, 2), ("e.mp4", 12.9, 1)]),
    "03": ("test", [("x.mp4", 0.0, 1), ("y.mp4", 8.0, 1)]),
    "04": ("test", [("y.mp4", 1.0, 2), ("x.mp4", 9.2, 2)]),
}
CLIPS = sorted({trial[0] for _, trials in RUNS.values() for trial in trials})


def write_gifti(path: Path, series: np.ndarray) -> None:
    arrays = [nibabel.gifti.GiftiDataArray(volume.astype(np.float32)) for volume in series]
    nibabel.save(nibabel.gifti.GiftiImage(darrays=arrays), path)


def write_events(path: Path, split: str, trials: list) -> None:
    rows = ["onset\tduration\ttrial_type\tstim_file\trepeat"]
    rows += [f"{onset}\t2.0\t{split}\t{clip}\t{repeat}" for clip, onset, repeat in trials]
    path.write_text("\n".join(rows) + "\n")


def stem(root: Path, subject: str, run: str) -> str:
    return f"{root}/sub-{subject}/func/sub-{subject}_task-clips_run-{run}"


def series_of(subject: str, run: str) -> np.ndarray:
    """Few random time courses spread over the vertices, on a mean of 1000; small when packed."""
    rng = np.random.default_rng([int(subject), int(run)])
    courses = rng.normal(size=(VOLUMES, 64)).astype(np.float32)
    return 1000 + 10 * np.repeat(courses, 321, axis=1)[:, :20_484]


def write_small_study(root: Path) -> Path:
    stimuli = root / "stimuli"
    stimuli.mkdir(parents=True)
    for number, clip in enumerate(CLIPS):
        frames = np.full((4, 16, 16, 3), 30 * number + 20, np.uint8)
        frames += (10 * np.arange(4, dtype=np.uint8))[:, None, None, None]
        write_mp4(stimuli / clip, frames, frame_rate=2)
    rows = [f"{clip}\ta small red ball {clip[0]}" for clip in CLIPS]
    (stimuli / "captions.tsv").write_text("\n".join(["stim_file\tcaption", *rows]) + "\n")
    for subject in ("01", "02"):
        (root / f"sub-{subject}" / "func").mkdir(parents=True)
        for run, (split, trials) in RUNS.items():
            name = stem(root, subject, run)
            series = series_of(subject, run)
            for side, part in (("L", series[:, :10_242]), ("R", series[:, 10_242:])):
                scan = f"{name}_hemi-{side}_space-fsaverage5_bold"
                write_gifti(Path(f"{scan}.func.gii"), part)
                Path(f"{scan}.json").write_text(json.dumps({"RepetitionTime": REPETITION_TIME}))
            write_events(Path(f"{name}_events.tsv"), split, trials)
    return root


def settings(root: Path, store: Path, **changes) -> config.Data:
    values = {
        "root": root,
        "store": store,
        "subjects": ("01", "02"),
        "map_size": 32,
        "lag_seconds": 4.0,
        "window": 3,
        "frames": 2,
        "resolution": (16, 16),
    }
    return config.Data(**{**values, **changes})


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """Not to be changed: tests that damage it copy it first."""
    return write_small_study(tmp_path_factory.mktemp("study") / "bids")


@pytest.fixture(scope="session")
def store(study, tmp_path_factory):
    return prepare(settings(study, tmp_path_factory.mktemp("prepared") / "a.zarr"), progress=False)
