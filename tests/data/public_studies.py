"""Public studies as they are published, of few vertices, runs and clips: names, keys and numbers of
volumes are true."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import Delaunay

from glfa_jax.data.layouts import hcp7t
from glfa_jax.data.video import write_mp4
from tests.data.meshes import write_labels, write_surface
from tests.data.scans import KEPT, MESH, write_cifti, write_nifti

Write = Callable[..., np.ndarray]


@dataclass(frozen=True)
class Cortex:
    """The mesh of `scans.write_cifti` as files, for `data.surfaces` and `data.region`.

    middle: where its vertices lie half way between white and pial surface, left then right.
    """

    surfaces: dict[str, Any]
    region: dict[str, Any]
    middle: np.ndarray


def write_cortex(folder: Path) -> Cortex:
    """Two sheets of vertices, but for those of the medial wall, which lie in no triangle."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, list[str]] = {"flat": [], "pial": [], "white": [], "label": []}
    middle = []
    for side, count, kept, rows in zip(("left", "right"), MESH, KEPT, (6, 8), strict=True):
        rng = np.random.default_rng(count)
        x, y = np.mgrid[:rows, : len(kept) // rows].reshape(2, -1) * 9.0 - 22
        x, y = x + rng.uniform(-1, 1, len(kept)), y + rng.uniform(-1, 1, len(kept))
        pial = np.stack([x + (80 if side == "right" else -80), y, 9 * np.sin(x / 9)], axis=1)
        sheets = {"flat": np.stack([x, y, 0 * x], axis=1), "pial": pial, "white": 0.95 * pial}
        faces = kept[Delaunay(sheets["flat"][:, :2]).simplices]
        for kind, points in sheets.items():
            whole = np.zeros((count, 3))
            whole[kept] = points
            path = folder / f"{side}.{kind}.surf.gii"
            files[kind].append(str(write_surface(path, whole, faces, side)))
        path = folder / f"{side}.label.gii"
        files["label"].append(str(write_labels(path, np.ones(count), {1: "V1"}, side)))
        whole = np.zeros((count, 3))
        whole[kept] = 0.975 * pial
        middle.append(whole)
    region = {"labels": files.pop("label"), "areas": ["V1"]}
    return Cortex(files, region, np.concatenate(middle))


# BOLD Moments: (task, session, run) -> the clips in their order; every one has its own seed.
BOLD_RUNS: dict[tuple[str, str, int], list[int]] = {
    ("train", "02", 1): [3, 1, 2],
    ("train", "03", 10): [2, 3, 1],
    ("test", "02", 1): [1001, 1002],
    ("test", "04", 3): [1002, 1001],
}
BOLD_VOLUMES = {"train": 238, "test": 268}
BOLD_FIRST, BOLD_STEP = 7.0, 4.25  # seconds: the first clip, and from one to the next


def bold_stem(subject: str, task: str, session: str, run: int) -> str:
    return f"sub-{subject}_ses-{session}_task-{task}_run-{run}"


def bold_scan(root: Path, subject: str, task: str, session: str, run: int) -> Path:
    folder = root / "derivatives/versionB/fmriprep" / f"sub-{subject}" / f"ses-{session}" / "func"
    return folder / f"{bold_stem(subject, task, session, run)}_space-fsLR_den-91k_bold.dtseries.nii"


def bold_events(root: Path, subject: str, task: str, session: str, run: int) -> Path:
    folder = root / f"sub-{subject}" / f"ses-{session}" / "func"
    return folder / f"{bold_stem(subject, task, session, run)}_events.tsv"


def bold_video(root: Path, task: str, clip: int) -> Path:
    return root / "derivatives/stimuli_metadata/stimuli" / task / f"{clip:04d}.mp4"


def write_bold_moments(
    root: Path,
    *,
    subjects: Sequence[str] = ("01",),
    runs: Mapping[tuple[str, str, int], list[int]] = BOLD_RUNS,
    write: Write = write_cifti,
    size: int = 16,
) -> dict[tuple[str, str, int], np.ndarray]:
    """Scans with fMRIPrep's sidecars, raw events, annotations and clips; the series of the last
    subject by run."""
    series = {}
    for subject in subjects:
        for seed, ((task, session, run), clips) in enumerate(runs.items()):
            scan = bold_scan(root, subject, task, session, run)
            scan.parent.mkdir(parents=True, exist_ok=True)
            series[task, session, run] = write(scan, BOLD_VOLUMES[task], step=1.75, seed=seed)
            sidecar = scan.with_name(scan.name.replace(".dtseries.nii", ".json"))
            sidecar.write_text(json.dumps({"RepetitionTime": 1.75, "StartTime": 0.0}))
            write_bold_events(bold_events(root, subject, task, session, run), task, clips)
    shown = {(task, clip) for (task, _, _), clips in runs.items() for clip in clips}
    annotations = {}
    for task, clip in sorted(shown):
        frames = np.full((6, size, size, 3), 5 * (clip % 40), np.uint8)
        bold_video(root, task, clip).parent.mkdir(parents=True, exist_ok=True)
        write_mp4(bold_video(root, task, clip), frames, frame_rate=2)
        texts = [f"Clip {clip} is described in sentence {i}" for i in range(1, 6)]
        annotations[f"{clip:04d}"] = {
            "bmd_matrixfilename": f"vid_idx{clip:04d}",
            "set": task,
            "objects": [["hat", "--", "--"]],
            "text_descriptions": texts,
            "memorability_score": 0.9,
        }
    path = root / "derivatives/stimuli_metadata/annotations.json"
    path.write_text(json.dumps(annotations))
    return series


def write_bold_events(path: Path, task: str, clips: Sequence[int]) -> None:
    """With a fixation, which shows nothing, and an odd one out among the clips."""
    rows = ["onset\tduration\ttrial_type\tstim_file", "0.0\t7.0\tfixation\tn/a"]
    onset = BOLD_FIRST
    for place, clip in enumerate(clips):
        rows.append(f"{onset:g}\t3.0\tvideo\t{task}/{clip:04d}.mp4")
        onset += BOLD_STEP
        if place == 0:
            rows.append(f"{onset:g}\t3.0\toddball\tn/a")
            onset += BOLD_STEP
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")


# The films of the HCP.

HCP_SCANS = {
    "MOVIE1": ("tfMRI_MOVIE1_7T_AP", 921, "7T_MOVIE1_CC1_v2.mp4"),
    "MOVIE2": ("tfMRI_MOVIE2_7T_PA", 918, "7T_MOVIE2_HO1_v2.mp4"),
    "MOVIE3": ("tfMRI_MOVIE3_7T_PA", 915, "7T_MOVIE3_CC2_v2.mp4"),
    "MOVIE4": ("tfMRI_MOVIE4_7T_AP", 901, "7T_MOVIE4_HO2_v2.mp4"),
}


def hcp_scan(root: Path, subject: str, film: str, mesh: str = "Atlas") -> Path:
    run, _, _ = HCP_SCANS[film]
    folder = root / subject / "MNINonLinear" / "Results" / run
    return folder / f"{run}_{mesh}_MSMAll_hp2000_clean.dtseries.nii"


def write_hcp7t(
    root: Path,
    *,
    subjects: Sequence[str] = ("100610",),
    write: Write = write_cifti,
    size: int = 16,
) -> dict[str, np.ndarray]:
    """Scans and films, each second of which has its own brightness; captions of every second. The
    series of each film, which is that of every subject."""
    series = {}
    (root / "stimuli").mkdir(parents=True)
    rows = ["stim_file\tcaption"]
    for seed, (film, (_, volumes, video)) in enumerate(HCP_SCANS.items()):
        first, *others = (hcp_scan(root, subject, film) for subject in subjects)
        first.parent.mkdir(parents=True)
        series[film] = write(first, volumes, step=1.0, seed=seed)
        for other in others:
            other.parent.mkdir(parents=True)
            other.symlink_to(first)
        seconds = (np.arange(volumes) // 4).astype(np.uint8)
        frames = np.broadcast_to(seconds[:, None, None, None], (volumes, size, size, 3))
        write_mp4(root / "stimuli" / video, np.ascontiguousarray(frames), frame_rate=1)
        rows += [f"{film}/{second:03d}\tsecond {second} of {film}" for second in range(volumes)]
    seconds = range(hcp7t.VALIDATION_SECONDS)
    rows += [f"validation/{second:03d}\tsecond {second} of the last clip" for second in seconds]
    (root / "captions.tsv").write_text("\n".join(rows) + "\n")
    return series


# The benchmark in volumes. Their values rise evenly along the axes: the mean along any way is that
# of its middle, however it is interpolated.

WEN_AFFINE = np.array([[8.0, 0, 0, -128], [0, 8, 0, -40], [0, 0, 8, -32], [0, 0, 0, 1]])
WEN_BOX = (33, 12, 9)


def wen_slopes(volumes: int, seed: int) -> np.ndarray:
    """Of each volume: the value at (0, 0, 0), and the change along x, y and z, a mm."""
    return np.random.default_rng(seed).normal([1000, 0, 0, 0], [5, 0.1, 0.1, 0.1], (volumes, 4))


def write_wen_volumes(path: Path, volumes: int, *, seed: int) -> None:
    places = np.stack([*np.indices(WEN_BOX), np.ones(WEN_BOX)], axis=-1) @ WEN_AFFINE.T
    axes = np.concatenate([np.ones((*WEN_BOX, 1)), places[..., :3]], axis=-1)
    write_nifti(path, axes @ wen_slopes(volumes, seed).T, affine=WEN_AFFINE, step=2.0)


def write_wen2018(
    root: Path,
    films: Mapping[str, Sequence[int]],
    *,
    space: str = "MNI152NLin6Asym",
    subjects: Sequence[str] = ("1",),
    size: int = 16,
) -> None:
    """films: the repeats of each; the ninth of test1 is named as in the published files. Every clip
    is a level brighter than the one before; a repeat is the seed of its series."""
    (root / "stimuli").mkdir(parents=True)
    rows = ["stim_file\tcaption"]
    for film, repeats in films.items():
        for subject in subjects:
            folder = root / "video_fmri_dataset" / f"subject{subject}" / "fmri" / film
            for repeat in repeats:
                odd = (film, repeat) == ("test1", 9)
                name = f"mni/{film}_{repeat}{'.' if odd else '_'}mni.nii.gz"
                if space == "fsLR":
                    name = f"cifti/{film}_{repeat}_Atlas.dtseries.nii"
                    write_cifti(folder / name, 245, seed=repeat)
                else:
                    write_wen_volumes(folder / name, 245, seed=repeat)
        frames = np.repeat(np.arange(240, dtype=np.uint8), 2)[:, None, None, None]
        write_mp4(
            root / "stimuli" / f"{film}.mp4", np.tile(frames, (1, size, size, 3)), frame_rate=1
        )
        rows += [f"{film}/{clip:03d}\tclip {clip} of {film}" for clip in range(240)]
    (root / "captions.tsv").write_text("\n".join(rows) + "\n")
