"""Wen et al. 2018 as a partial download: a few films of each subject, with the true names."""

from pathlib import Path

import nibabel
import numpy as np
from nibabel.cifti2 import BrainModelAxis, Cifti2Image, SeriesAxis

from glfa_jax.data.video import write_mp4

VOLUMES, CLIPS = 245, 240
SIDE, RATE = 128, 15  # pixels and frames a second of the films
# Film to its repeats, for subjects 1, 2 and 3.
RUNS = ({"seg1": 2, "test1": 2}, {"seg1": 2, "test1": 2}, {"seg1": 1, "test1": 2})


def write(root: Path, models: BrainModelAxis) -> None:
    """Scans of 91,282 grayordinates that follow the films' brightness, films and captions."""
    rng = np.random.default_rng(0)
    films = sorted({name for runs in RUNS for name in runs})
    brightness = {name: rng.uniform(40, 215, CLIPS) for name in films}
    (root / "stimuli").mkdir(parents=True)
    for name, levels in brightness.items():
        _write_film(root / "stimuli" / f"{name}.mp4", levels)
    gain = rng.normal(0, 3, len(models)).astype(np.float32)
    for subject, runs in enumerate(RUNS, 1):
        for name, repeats in runs.items():
            folder = root / "video_fmri_dataset" / f"subject{subject}" / "fmri" / name / "cifti"
            folder.mkdir(parents=True)
            seen = np.resize((brightness[name] - 128) / 64, VOLUMES).astype(np.float32)
            for repeat in range(1, repeats + 1):
                noise = rng.standard_normal((VOLUMES, len(models)), np.float32)
                values = 10_000 + 100 * (seen[:, None] * gain + noise)
                axes = (SeriesAxis(0, 2.0, VOLUMES), models)
                path = folder / f"{name}_{repeat}_Atlas.dtseries.nii"
                nibabel.save(Cifti2Image(values, axes), path)
    rows = [
        f"{name}/{clip:03d}\ta {'bright' if level > 128 else 'dark'} square"
        for name, levels in brightness.items()
        for clip, level in enumerate(levels)
    ]
    (root / "captions.tsv").write_text("\n".join(["stim_file\tcaption", *rows]) + "\n")


def _write_film(path: Path, levels: np.ndarray) -> None:
    """Eight minutes; a square wanders over a ground of each clip's brightness."""
    frames = np.empty((2 * RATE * CLIPS, SIDE, SIDE, 3), np.uint8)
    for number, frame in enumerate(frames):
        frame[:] = levels[number // (2 * RATE)]
        left = number % (SIDE - 32)
        frame[48:80, left : left + 32] = 255 - frame[0, 0]
    write_mp4(path, frames, frame_rate=RATE)
