"""A study of three subjects of whom the third's maps are displaced by one pixel."""

from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from glfa_jax.data.store import Split, Store
from tests import stores
from tests.stages.tiny import FRAMES, SIDE, WINDOW

SUBJECTS = ("01", "02", "03")
CLIPS: dict[Split, int] = {"train": 60, "test": 12}  # of two seconds: two minutes of training
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
    rng = np.random.default_rng(0)
    maps: dict[str, dict[Split, np.ndarray]] = {subject: {} for subject in SUBJECTS}
    for split, clips in CLIPS.items():
        for subject, found in responses(clips, rng).items():
            maps[subject][split] = found
    maps["03"]["train"][CLEAN:] = np.nan
    return stores.write_store(
        path,
        identity="displaced",
        mask=MASK,
        videos={split: np.zeros((n, FRAMES, 8, 8, 3), np.uint8) for split, n in CLIPS.items()},
        maps=maps,
    )
