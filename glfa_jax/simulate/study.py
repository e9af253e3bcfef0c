"""Writes a simulated study as a BIDS derivative, with its ground truth beside the data."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from tqdm import tqdm

from glfa_jax import config
from glfa_jax.data import DataError
from glfa_jax.data.video import write_mp4
from glfa_jax.errors import InputError
from glfa_jax.files import read_object, whole_folder
from glfa_jax.lock import alone
from glfa_jax.simulate.anatomy import write_anatomy
from glfa_jax.simulate.artefacts import Restless, asked
from glfa_jax.simulate.bold import NOISE_SCALE, correlated_noise, noise_for
from glfa_jax.simulate.cortex import smooth_field, visual_cortex
from glfa_jax.simulate.description import GENERATOR, write_description
from glfa_jax.simulate.ground_truth import write_canonical, write_truth
from glfa_jax.simulate.plan import Run, draw_clips, frames_of, plan_runs, signal_power
from glfa_jax.simulate.stimuli import Scene, caption, render
from glfa_jax.simulate.streams import Stream, generator
from glfa_jax.simulate.subjects import Subject, draw_subject
from glfa_jax.simulate.tuning import GRID, canonical_tuning, features
from glfa_jax.simulate.writing import write_gifti, write_json, write_table

TASK, SPACE = "clips", "fsaverage5"
BASELINE = 10000.0  # of BOLD, in arbitrary units
BASELINE_SPREAD = 0.1  # standard deviation over the cortex, of the baseline
SIGNAL_CHANGE = 0.01  # standard deviation of the signal, of the baseline


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
    clips = draw_clips(simulation)
    names = [clip.file for clip in clips]
    runs_each = simulation.train_runs + simulation.test_runs * simulation.test_repeats
    steps = len(clips) + simulation.subjects * runs_each
    with tqdm(total=steps, disable=not progress, desc="simulate", unit="file") as bar:
        drives, rows = [], []
        for clip in clips:
            drives.append(_write_clip(folder / "stimuli" / clip.file, clip.scene, simulation))
            about = {"stim_file": clip.file, "caption": caption(clip.scene)}
            rows.append(about | vars(clip.scene))
            bar.update()
        write_table(folder / "stimuli" / "captions.tsv", rows)

        common = plan_runs(simulation, drives)
        canonical = tuning.weights(cortex.canonical, cortex.side)
        # Of the answers, so that the signal has size 1.
        unit = float(np.sqrt(signal_power(common, canonical).mean()))
        for index, name in enumerate(simulation.names):
            others = name in simulation.own_clips
            runs = plan_runs(simulation, drives, subject=name) if others else common
            subject = draw_subject(simulation, tuning, index=index)
            power, own_share = _strength(subject, runs, unit=unit)
            if simulation.reliability is not None:
                subject = replace(subject, noise=noise_for(simulation.reliability, power=power))
            rng = generator(simulation.seed, Stream.NOISE, index=index)
            level = smooth_field(rng, count=1, scale=30.0)(cortex.canonical)[:, 0]
            baseline = BASELINE * (1 + BASELINE_SPREAD * np.clip(level, -3, 3))
            restless = None
            if asked(simulation):
                restless = Restless(simulation, cortex, index=index)
            for run in runs:
                signal = run.drive @ (subject.weights / unit)
                noise = correlated_noise(
                    rng,
                    smoother,
                    volumes=len(signal),
                    repetition_time=simulation.repetition_time,
                )
                change = signal + subject.noise * noise
                func = folder / f"sub-{name}" / "func"
                if restless is None:
                    bold = baseline * (1 + SIGNAL_CHANGE * change)
                else:
                    artefacts = restless.run(len(signal))
                    bold = baseline * (1 + SIGNAL_CHANGE * (change + artefacts.added))
                    restless.write_confounds(func / _confounds(name, run), artefacts, bold)
                _write_run(func, name, run, bold, simulation, names)
                bar.update()
            if subject.anatomy is not None:
                anat = folder / f"sub-{name}" / "anat"
                write_anatomy(anat, subject.anatomy, cortex=cortex, subject=name, space=SPACE)
            truth = folder / "ground_truth" / f"sub-{name}.npz"
            write_truth(truth, subject, power=power, own_share=own_share)
    write_canonical(folder / "ground_truth" / "canonical.npz", cortex)
    write_description(folder, simulation)


def _confounds(subject: str, run: Run) -> str:
    return f"sub-{subject}_task-{TASK}_run-{run.name}_desc-confounds_timeseries.tsv"


def _strength(
    subject: Subject, runs: Sequence[Run], *, unit: float
) -> tuple[Float[ndarray, " r"], Float[ndarray, " r"] | None]:
    """Variance of the signal over `unit` squared, and how much of it no other subject has."""
    power = signal_power(runs, subject.weights / unit)
    if subject.own is None:
        return power, None
    own = signal_power(runs, subject.own / unit)
    shared = signal_power(runs, (subject.weights - subject.own) / unit)
    return power, own / (own + shared)


def _check(simulation: config.Simulation) -> None:
    if simulation.size % GRID:
        raise DataError(f"simulation.size: must be a multiple of {GRID}, is {simulation.size}")
    if frames_of(simulation) < 1:
        raise DataError(
            f"simulation.clip_seconds: {simulation.clip_seconds} s hold no frame at "
            f"{simulation.frame_rate} frames a second"
        )


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
        theirs = config.Simulation(**theirs).model_dump(mode="json")
    ours = simulation.model_dump(mode="json")
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
    video = render(scene, frames=frames_of(simulation), size=simulation.size, frame_rate=rate)
    write_mp4(path, video, frame_rate=rate)
    return features(scene, video)


def _write_run(
    folder: Path,
    subject: str,
    run: Run,
    bold: Float[ndarray, "t r"],
    simulation: config.Simulation,
    names: Sequence[str],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    cortex = visual_cortex()
    stem = f"sub-{subject}_task-{TASK}_run-{run.name}"
    sides = cortex.on_the_mesh(np.rint(bold))  # scanners give whole numbers, and files stay small
    for side, structure, series in zip("LR", ("CortexLeft", "CortexRight"), sides, strict=True):
        name = f"{stem}_hemi-{side}_space-{SPACE}_bold"
        write_gifti(
            folder / f"{name}.func.gii",
            series,
            structure=structure,
            repetition_time=simulation.repetition_time,
        )
        write_json(
            folder / f"{name}.json",
            {"RepetitionTime": simulation.repetition_time, "TaskName": TASK, "StartTime": 0.0},
        )
    write_table(
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
