"""Files of a tiny study of every layout: true names, keys and lengths, few runs and clips.

Each function writes a study for some subjects and gives the options of `data` that say where it is.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from glfa_jax.data.video import write_mp4
from tests.data.conftest import write_gifti
from tests.data.public_studies import write_bold_moments, write_hcp7t, write_wen2018
from tests.data.scans import write_cifti

SIZE = 64  # of videos, as the foundation's

Subjects = tuple[str, ...]
Write = Callable[[Path, Subjects], dict[str, Any]]


# Wen 2018


def wen(space: str) -> Write:
    def write(root: Path, subjects: Subjects) -> dict[str, Any]:
        films = {"seg1": [1], "test1": [1]}
        write_wen2018(root, films, space=space, subjects=subjects, size=SIZE)
        return {"root": str(root), "captions": str(root / "captions.tsv")}

    return write


# BOLD Moments and HCP


def bold_moments(root: Path, subjects: Subjects) -> dict[str, Any]:
    runs = {("train", "02", 1): [*range(1, 9)], ("test", "02", 1): [1001, 1002, 1003, 1004]}
    write_bold_moments(root, subjects=subjects, runs=runs, size=SIZE)
    return {"root": str(root)}


def hcp7t(root: Path, subjects: Subjects) -> dict[str, Any]:
    write_hcp7t(root, subjects=subjects)
    return {"root": str(root), "captions": str(root / "captions.tsv"), "clip_seconds": 20}


# Fudan

IMAGE = (30, 44)
# Run lists, of 200 videos in the set; the fourth shows those of the first again.
LISTS = {number: range(1000 * number, 1000 * number + 16) for number in (1, 2, 3, 5, 6, 7)}
LISTS[4] = LISTS[1][::-1]
# Subject 1 saw a list a run, the others a quarter: list 2 begins with their run 5.
FUDAN_RUNS = {"1": {2: 16, 1: 16}, "2": {5: 4, 1: 4}, "4": {5: 4, 1: 4}}


def fudan(root: Path, subjects: Subjects) -> dict[str, Any]:
    stimuli = root / "stimuli"
    (stimuli / "condition").mkdir(parents=True)
    mask = np.zeros(IMAGE, np.int8)
    mask[3:27, 3:41] = -1
    mask[5:25, 8:33] = 1
    np.savez(root / "vc_roi.npz", images=mask[None])
    for number, videos in LISTS.items():
        lines = "".join(f"{video}\n" for video in videos)
        (stimuli / "condition" / f"run{number}.txt").write_text(lines)
        for video in videos if number in (1, 2) else ():
            frames = np.full((24, SIZE, SIZE, 3), 5 * (video % 40), np.uint8)
            write_mp4(stimuli / f"{video}.mp4", frames, frame_rate=3)
    names = {video: f"caption of {video}" for videos in LISTS.values() for video in videos}
    np.save(stimuli / "vid2name.npy", np.array(names, object), allow_pickle=True)
    for subject in subjects:
        name = f"sub-{int(subject):04d}"
        folder = root / "processed-fmri" / name / "hdf5"
        folder.mkdir(parents=True)
        for run, videos in FUDAN_RUNS[subject].items():
            rng = np.random.default_rng([int(subject), run])
            values = rng.normal(300, 5, (3 + 13 * videos, *IMAGE)).astype(np.float32)
            file = f"{name}_task-video_run-{run}_space-fsLR_den-91k_bold.dtseries.h5"
            with h5py.File(folder / file, "w") as held:
                held["images"] = np.where(mask != 0, values, 0)
    return {"root": str(root)}


# BIDS: CineBrain's clips, and films

CINEBRAIN_RUNS = {1: range(8), 20: range(5130, 5134)}  # those of 270 clips that were downloaded


def cinebrain(root: Path, subjects: Subjects) -> dict[str, Any]:
    """What its page makes of the set: fMRIPrep's output, events of each run, clips, captions."""
    (root / "stimuli").mkdir(parents=True)
    rows = ["stim_file\tcaption"]
    for run, clips in CINEBRAIN_RUNS.items():
        for clip in clips:
            frames = np.full((8, SIZE, SIZE, 3), 5 * (clip % 40), np.uint8)
            write_mp4(root / "stimuli" / f"{clip:06d}.mp4", frames, frame_rate=2)
            rows.append(f"{clip:06d}.mp4\tclip {clip}")
        for subject in subjects:
            own = Path(f"sub-{subject}", "func", f"sub-{subject}_task-shape_run-{run}")
            scan = root / "derivatives/fmriprep" / f"{own}_space-fsLR_den-91k_bold.dtseries.nii"
            write_cifti(scan, 1400, step=0.8, seed=100 * int(subject) + run)
            sidecar = scan.with_name(scan.name.replace(".dtseries.nii", ".json"))
            sidecar.write_text(json.dumps({"RepetitionTime": 0.8, "StartTime": 0.4}))
            first, split = 270 * (run - 1), "test" if run > 18 else "train"
            lines = ["onset\tduration\ttrial_type\tstim_file\trepeat"]
            lines += [f"{12.5 + 4 * i:.3f}\t4\t{split}\t{first + i:06d}.mp4\t1" for i in range(270)]
            events = root / f"{own}_events.tsv"
            events.parent.mkdir(parents=True, exist_ok=True)
            events.write_text("\n".join(lines) + "\n")
    (root / "stimuli" / "captions.tsv").write_text("\n".join(rows) + "\n")
    return {"root": str(root / "derivatives/fmriprep")}


FILM_SECONDS, FILM_VOLUMES = 200, 110  # of 2 s


def film_stem(subject: str) -> Path:
    return Path(f"sub-{subject}", "func", f"sub-{subject}_task-movie_run-1")


def films(root: Path, subjects: Subjects) -> dict[str, Any]:
    """A film a run, from 4 s on, on the surface; captions by the second at which they begin."""
    (root / "stimuli").mkdir(parents=True)
    frames = np.arange(FILM_SECONDS, dtype=np.uint8)[:, None, None, None]
    write_mp4(root / "stimuli" / "wolf.mp4", np.tile(frames, (1, SIZE, SIZE, 3)), frame_rate=1)
    rows = [f"wolf.mp4\t{begin}\tfrom {begin} s on" for begin in range(0, FILM_SECONDS, 20)]
    table = "\n".join(["stim_file\tonset\tcaption", *rows]) + "\n"
    (root / "stimuli" / "captions.tsv").write_text(table)
    for subject in subjects:
        own = film_stem(subject)
        events = root / f"{own}_events.tsv"
        events.parent.mkdir(parents=True)
        rows = ["0\t4\tfixation\tn/a", f"4\t{FILM_SECONDS}\tmovie\twolf.mp4"]
        events.write_text("\n".join(["onset\tduration\ttrial_type\tstim_file", *rows]) + "\n")
        courses = np.random.default_rng(int(subject)).normal(size=(FILM_VOLUMES, 64))
        series = 1000 + 10 * np.repeat(courses, 321, axis=1)[:, :20_484]
        for side, part in zip("LR", np.split(series, 2, axis=1), strict=True):
            name = f"{own}_hemi-{side}_space-fsaverage5_bold"
            scan = root / "derivatives/fmriprep" / f"{name}.func.gii"
            scan.parent.mkdir(parents=True, exist_ok=True)
            write_gifti(scan, part)
            scan.with_name(f"{scan.name.split('.')[0]}.json").write_text(
                json.dumps({"RepetitionTime": 2.0, "StartTime": 1.0})
            )
    return {"root": str(root / "derivatives/fmriprep")}
