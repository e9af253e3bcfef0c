"""Writes a simulated study as a BIDS derivative, with its ground truth beside the data."""

import base64
import csv
import json
import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped
from numpy import ndarray
from tqdm import tqdm

from glfa_jax import config
from glfa_jax.data import DataError
from glfa_jax.data.video import write_mp4
from glfa_jax.errors import InputError
from glfa_jax.files import read_object, whole_folder
from glfa_jax.lock import alone
from glfa_jax.simulate.cortex import Cortex, smooth_field, visual_cortex
from glfa_jax.simulate.stimuli import Scene, caption, render, sample_scene
from glfa_jax.simulate.subjects import (
    GRID,
    NOISE_SCALE,
    Subject,
    canonical_tuning,
    convolution,
    correlated_noise,
    draw_subject,
    features,
)

TASK, SPACE = "clips", "fsaverage5"
LEAD, TAIL = 4.0, 10.0  # seconds of blank before the first and after the last clip of a run
BASELINE = 10000.0  # of BOLD, in arbitrary units
BASELINE_SPREAD = 0.1  # standard deviation over the cortex, of the baseline
SIGNAL_CHANGE = 0.01  # standard deviation of the signal, of the baseline
GENERATOR = "glfa_jax.simulate"


@dataclass(frozen=True, eq=False)
class _Run:
    """A run is the same for all subjects but for the answer and the noise."""

    name: str
    split: str
    repeat: int
    clips: Int[ndarray, " n"]
    onsets: Float[ndarray, " n"]
    drive: Float[ndarray, "t features"]


def subject_names(simulation: config.Simulation) -> list[str]:
    """BIDS labels of the subjects: 01, 02, ..."""
    return [f"{number:02d}" for number in range(1, simulation.subjects + 1)]


def write_study(simulation: config.Simulation, root: Path, *, progress: bool = True) -> None:
    """Writes the study at `root`, or leaves a complete one with the same settings alone.

    Raises DataError where `root` holds anything else; waits for another process that writes it.
    """
    root = Path(root)
    _check(simulation)
    if not os.path.lexists(root):
        with alone(root):
            if not os.path.lexists(root):  # another process was faster
                with whole_folder(root) as folder:
                    _write(simulation, folder, progress=progress)
    _require_same(root, simulation)


def _write(simulation: config.Simulation, folder: Path, *, progress: bool) -> None:
    cortex = visual_cortex()
    tuning = canonical_tuning(cortex, seed=simulation.seed)
    smoother = cortex.smoother(NOISE_SCALE)
    train = simulation.train_runs * simulation.clips_per_run
    test = simulation.test_runs * simulation.clips_per_run
    runs_each = simulation.train_runs + simulation.test_runs * simulation.test_repeats
    steps = train + test + simulation.subjects * runs_each
    with tqdm(total=steps, disable=not progress, desc="simulate", unit="file") as bar:
        drives, names = [], []
        rows = []
        rng = np.random.default_rng([simulation.seed, 3])
        # Test clips start a new block of the balanced design: other combinations than in training.
        first_test = -(-train // 64) * 64
        for number in range(train + test):
            split, index = ("train", number) if number < train else ("test", number - train)
            scene = sample_scene(rng, index if split == "train" else first_test + index)
            names.append(f"{split}_{index:04d}.mp4")
            drives.append(_write_clip(folder / "stimuli" / names[-1], scene, simulation))
            rows.append({"stim_file": names[-1], "caption": caption(scene)} | vars(scene))
            bar.update()
        _write_table(folder / "stimuli" / "captions.tsv", rows)
        runs = _plan(simulation, drives)

        canonical = tuning.weights(cortex.canonical, cortex.side)
        variance = np.mean(
            [np.var(run.drive @ canonical, axis=0) for run in runs if run.split == "train"], axis=0
        )
        unit = float(np.sqrt(variance.mean()))  # of the answers, so that the signal has size 1
        for index, name in enumerate(subject_names(simulation)):
            subject = draw_subject(simulation, tuning, index=index)
            rng = np.random.default_rng([simulation.seed, 4, index])
            level = smooth_field(rng, count=1, scale=30.0)(cortex.canonical)[:, 0]
            baseline = BASELINE * (1 + BASELINE_SPREAD * np.clip(level, -3, 3))
            power = []
            for run in runs:
                signal = run.drive @ (subject.weights / unit)
                if run.split == "train":
                    power.append(signal.var(axis=0))
                noise = correlated_noise(
                    rng,
                    smoother,
                    volumes=len(signal),
                    repetition_time=simulation.repetition_time,
                )
                bold = baseline * (1 + SIGNAL_CHANGE * (signal + subject.noise * noise))
                _write_run(folder / f"sub-{name}" / "func", name, run, bold, simulation, names)
                bar.update()
            _write_truth(
                folder / "ground_truth" / f"sub-{name}.npz", subject, np.mean(power, axis=0)
            )
    _write_canonical(folder / "ground_truth" / "canonical.npz", cortex)
    _write_description(folder, simulation)


def _check(simulation: config.Simulation) -> None:
    if simulation.size % GRID:
        raise DataError(f"simulation.size: must be a multiple of {GRID}, is {simulation.size}")
    if _frames(simulation) < 1:
        raise DataError(
            f"simulation.clip_seconds: {simulation.clip_seconds} s hold no frame at "
            f"{simulation.frame_rate} frames a second"
        )


def _frames(simulation: config.Simulation) -> int:
    return round(simulation.clip_seconds * simulation.frame_rate)


def _settings(simulation: config.Simulation) -> dict[str, Any]:
    return simulation.model_dump(mode="json")


def _require_same(root: Path, simulation: config.Simulation) -> None:
    path = root / "dataset_description.json"
    try:
        generator = read_object(path)["GeneratedBy"][0]
        name, theirs = generator["Name"], dict(generator["Settings"])
    except (InputError, KeyError, IndexError, TypeError, ValueError):
        name, theirs = None, {}
    if name != GENERATOR:
        raise DataError(f"{root}: exists and is no simulated study; name another folder")
    with suppress(ValueError, TypeError):  # options that did not exist then are at their defaults
        theirs = _settings(config.Simulation(**theirs))
    ours = _settings(simulation)
    differing = [
        f"{key} is {theirs.get(key)} there and {ours.get(key)} here"
        for key in sorted(ours | theirs)
        if ours.get(key) != theirs.get(key)
    ]
    if differing:
        raise DataError(
            f"{root}: holds a study simulated with other settings ({', '.join(differing)}); "
            f"name another folder or delete it"
        )


def _write_clip(
    path: Path, scene: Scene, simulation: config.Simulation
) -> Float[ndarray, "f features"]:
    """Writes the video and gives what it drives in the cortex."""
    path.parent.mkdir(exist_ok=True)
    rate = simulation.frame_rate
    video = render(scene, frames=_frames(simulation), size=simulation.size, frame_rate=rate)
    write_mp4(path, video, frame_rate=rate)
    return features(scene, video)


def _plan(simulation: config.Simulation, drives: Sequence[ndarray]) -> list[_Run]:
    """Which clips come when: every repeat of a test run shows the same clips in a new order."""
    each = simulation.clips_per_run
    blocks = [("train", 1, number) for number in range(simulation.train_runs)]
    for number in range(simulation.test_runs):
        for repeat in range(1, simulation.test_repeats + 1):
            blocks.append(("test", repeat, simulation.train_runs + number))
    rng = np.random.default_rng([simulation.seed, 5])
    onsets = LEAD + (simulation.clip_seconds + simulation.gap_seconds) * np.arange(each)
    end = onsets[-1] + simulation.clip_seconds + TAIL
    volumes = np.arange(np.ceil(end / simulation.repetition_time)) * simulation.repetition_time
    step = 1 / simulation.frame_rate
    frames = (onsets[:, None] + step * np.arange(_frames(simulation))).ravel()
    response = convolution(frames, volumes, duration=step)
    runs = []
    for number, (split, repeat, block) in enumerate(blocks, start=1):
        clips = block * each + rng.permutation(each)
        drive = response @ np.concatenate([drives[clip] for clip in clips])
        runs.append(_Run(f"{number:02d}", split, repeat, clips, onsets, drive))
    return runs


def _write_run(
    folder: Path,
    subject: str,
    run: _Run,
    bold: Float[ndarray, "t r"],
    simulation: config.Simulation,
    names: Sequence[str],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    cortex = visual_cortex()
    stem = f"sub-{subject}_task-{TASK}_run-{run.name}"
    whole = np.zeros((len(bold), sum(cortex.num_vertices)), np.float32)
    whole[:, cortex.vertices] = np.rint(bold)  # scanners give whole numbers, and files stay small
    sides = np.split(whole, [cortex.num_vertices[0]], axis=1)
    for side, structure, series in zip("LR", ("CortexLeft", "CortexRight"), sides, strict=True):
        name = f"{stem}_hemi-{side}_space-{SPACE}_bold"
        write_gifti(
            folder / f"{name}.func.gii",
            series,
            structure=structure,
            repetition_time=simulation.repetition_time,
        )
        _write_json(
            folder / f"{name}.json",
            {"RepetitionTime": simulation.repetition_time, "TaskName": TASK, "StartTime": 0.0},
        )
    _write_table(
        folder / f"{stem}_events.tsv",
        [
            {
                "onset": float(onset),
                "duration": simulation.clip_seconds,
                "trial_type": run.split,
                "stim_file": names[clip],
                "repeat": run.repeat,
            }
            for clip, onset in zip(run.clips, run.onsets, strict=True)
        ],
    )


def write_gifti(
    path: Path, series: Float[ndarray, "t v"], *, structure: str, repetition_time: float
) -> None:
    """A functional GIFTI file, one data array a volume; `repetition_time` in seconds.

    Written by hand: nibabel compresses at zlib's default level, here 25 times slower for files 7 %
    smaller.
    """

    def meta(**values: str) -> str:
        items = "".join(f"<MD><Name>{k}</Name><Value>{v}</Value></MD>" for k, v in values.items())
        return f"<MetaData>{items}</MetaData>"

    with path.open("w", encoding="utf-8") as file:
        file.write(
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            '<!DOCTYPE GIFTI SYSTEM "http://www.nitrc.org/frs/download.php/115/gifti.dtd">\n'
            f'<GIFTI Version="1.0" NumberOfDataArrays="{len(series)}">\n'
            # GIFTI counts TimeStep in milliseconds.
            + meta(AnatomicalStructurePrimary=structure, TimeStep=str(1000 * repetition_time))
            + "\n<LabelTable/>\n"
        )
        for volume in series.astype("<f4"):
            data = base64.b64encode(zlib.compress(volume.tobytes(), 1)).decode("ascii")
            file.write(
                '<DataArray Intent="NIFTI_INTENT_TIME_SERIES" DataType="NIFTI_TYPE_FLOAT32" '
                f'ArrayIndexingOrder="RowMajorOrder" Dimensionality="1" Dim0="{len(volume)}" '
                'Encoding="GZipBase64Binary" Endian="LittleEndian" ExternalFileName="" '
                f'ExternalFileOffset="0">{meta()}<Data>{data}</Data></DataArray>\n'
            )
        file.write("</GIFTI>\n")


def _write_truth(path: Path, subject: Subject, power: Float[ndarray, " r"]) -> None:
    """power: variance of the noiseless signal, in units of the canonical signal's."""
    # Correlation of one volume with its noiseless self.
    ceiling = np.sqrt(power / (power + subject.noise**2)) if subject.noise else np.ones(len(power))
    _write_arrays(
        path,
        displacement=subject.displacement,
        patch_target=subject.patch_target,
        patch_target_side=subject.patch_target_side,
        patch_source=subject.patch_source,
        patch_source_side=subject.patch_source_side,
        patch_weight=np.array(subject.patch_weight),
        gain=subject.gain,
        noise=np.array(subject.noise),
        noise_ceiling=ceiling,
    )


def _write_canonical(path: Path, cortex: Cortex) -> None:
    _write_arrays(
        path,
        vertices=cortex.vertices,
        side=cortex.side,
        canonical=cortex.canonical,
        parts=cortex.parts(cortex.canonical),
    )


def _write_arrays(path: Path, **arrays: Shaped[ndarray, "..."]) -> None:
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, allow_pickle=False, **arrays)


def _write_description(root: Path, simulation: config.Simulation) -> None:
    _write_json(
        root / "dataset_description.json",
        {
            "Name": "Simulated video-fMRI study",
            "BIDSVersion": "1.10.0",
            "DatasetType": "derivative",
            "License": "CC0",
            "GeneratedBy": [
                {
                    "Name": GENERATOR,
                    "Version": version("glfa_jax"),
                    "Settings": _settings(simulation),
                }
            ],
        },
    )
    subjects = [{"participant_id": f"sub-{name}"} for name in subject_names(simulation)]
    _write_table(root / "participants.tsv", subjects)
    (root / "README").write_text(_README, encoding="utf-8")


_README = """Simulated fMRI of people who watch short captioned clips, written by glfa_jax.simulate.

sub-*/func     BOLD on fsaverage5, whole numbers around 10000, zero outside the visual region;
               events.tsv says which clip was shown when (trial_type train or test; test clips are
               repeated in further runs).
stimuli        the clips, and captions.tsv with caption, labels and place of the object.
ground_truth   canonical.npz: vertices of the visual region (left then right hemisphere), side
               (-1 left, 1 right), canonical coordinates (mm forward from the posterior border, mm
               up), share of the early, middle and higher part.
               sub-*.npz, over the same vertices: displacement (mm forward, up; a vertex has the
               canonical tuning of its place + displacement), patches (around patch_target, the
               share patch_weight of the signal, fading as a Gaussian, comes from the same offset
               around patch_source), gain, noise (over the signal's standard deviation),
               noise_ceiling (correlation of a volume with the noiseless signal).
"""


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=rows[0], delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
