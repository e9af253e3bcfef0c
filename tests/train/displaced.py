"""A study of three subjects of whom the third's maps are displaced by one pixel."""

from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from glfa_jax.data.store import Attributes, Store
from tests.train.tiny import FRAMES, SIDE, WINDOW

SUBJECTS = ("01", "02", "03")
CLIPS = {"train": 60, "test": 12}
SECONDS = 2.0  # two minutes of training in all
CLEAN = 30  # of the last one, the third subject's are not numbers
MASK = np.pad(np.ones((SIDE - 2, SIDE - 2), bool), 1)


def responses(clips: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Smooth maps of every clip, with noise of each subject's own."""
    shape = (clips, WINDOW, SIDE, SIDE)
    common = gaussian_filter(rng.standard_normal(shape), (0, 0, 0.7, 0.7), mode="wrap")
    common /= common.std()
    moved = {"01": common, "02": common, "03": np.roll(common, 1, axis=-1)}
    return {
        subject: ((maps + 0.2 * rng.standard_normal(shape)) * MASK).astype(np.float16)
        for subject, maps in moved.items()
    }


def write_store(path: Path) -> Store:
    names = {split: [f"{split}{i}.mp4" for i in range(n)] for split, n in CLIPS.items()}
    attributes = Attributes(
        subjects=SUBJECTS,
        repetition_time=1.0,
        lag_seconds=4.0,
        window=WINDOW,
        clips=names,
        captions=names,
        clip_seconds=SECONDS,
        layout="bids",
        space="fsaverage5",
        repeats=dict.fromkeys(SUBJECTS, 1),
        runs=[
            {"subject": subject, "name": split, "split": split, "volumes": 1, "missing": 0}
            for subject in SUBJECTS
            for split in CLIPS
        ],
        notes=[],
        fingerprint="f",
        identity="displaced",
        provenance={},
    )
    rng = np.random.default_rng(0)
    size = {"frames": FRAMES, "resolution": (8, 8)}
    with Store.create(path, attributes, mask=MASK, **size) as writer:
        for split, clips in CLIPS.items():
            writer.write(f"{split}/video", np.zeros((clips, FRAMES, 8, 8, 3), np.uint8))
            for subject, maps in responses(clips, rng).items():
                if (split, subject) == ("train", "03"):
                    maps[CLEAN:] = np.nan
                writer.write(f"{split}/fmri/sub-{subject}", maps)
                writer.write(f"{split}/present/sub-{subject}", np.ones(clips, bool))
                if split == "train":
                    writer.write(f"train/average/sub-{subject}", maps[:CLEAN].mean(0))
    return Store.open(path)
