"""Small stores whose every number is known."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from glfa_jax.data.layouts import SPLITS
from glfa_jax.data.store import SHARD, Attributes, Store
from tests.data.conftest import store, study

__all__ = ["store", "study"]  # fixtures

SUBJECTS = ("01", "02", "03")
CLIPS = {"train": 7, "test": SHARD + 9}  # more than one block of the test split
WINDOW, SIZE, FRAMES = 3, 24, 4
MASK = np.zeros((SIZE, SIZE), bool)
MASK[3:20, 2:11] = MASK[3:20, 13:22] = True
MASK[3, 2] = False
VOLUMES = 40


@dataclass
class Contents:
    """What a store is made of; a test changes it before it is written."""

    attributes: dict = field(default_factory=dict)
    arrays: dict = field(default_factory=dict)


def contents() -> Contents:
    """Subjects 01 and 02 respond alike to the test clips, and so does 03; nothing is missing."""
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(CLIPS["test"], WINDOW, SIZE, SIZE))
    arrays = {"mask": MASK}
    for split, clips in CLIPS.items():
        ramp = (
            np.arange(clips)[:, None, None, None, None]
            + 40 * np.arange(FRAMES)[:, None, None, None]
        )
        arrays[f"{split}/video"] = np.broadcast_to(ramp, (clips, FRAMES, 8, 12, 3)).astype(np.uint8)
        for subject in SUBJECTS:
            own = rng.normal(size=(clips, WINDOW, SIZE, SIZE))
            values = (own + (shared if split == "test" else 0)) * MASK
            arrays[f"{split}/fmri/sub-{subject}"] = values.astype(np.float16)
            arrays[f"{split}/present/sub-{subject}"] = np.ones(clips, bool)
    for subject in SUBJECTS:
        arrays[f"train/average/sub-{subject}"] = np.zeros((WINDOW, SIZE, SIZE), np.float32)
        arrays[f"quality/mean/sub-{subject}"] = rng.normal(900, 9, (SIZE, SIZE)) * MASK
        arrays[f"quality/tsnr/sub-{subject}"] = rng.normal(60, 5, (SIZE, SIZE)) * MASK
        arrays[f"quality/reliability/sub-{subject}"] = rng.normal(0.4, 0.1, (SIZE, SIZE)) * MASK
        arrays[f"quality/course/sub-{subject}"] = rng.normal(0, 0.5, 2 * VOLUMES)
    attributes = {
        "subjects": SUBJECTS,
        "repetition_time": 1.0,
        "lag_seconds": 4.0,
        "window": WINDOW,
        "clips": {split: [f"{split}{i}.mp4" for i in range(n)] for split, n in CLIPS.items()},
        "captions": {s: [f"<b>{s}</b> & clip {i}" for i in range(n)] for s, n in CLIPS.items()},
        "clip_seconds": 2.0,
        "layout": "bids",
        "space": "fsaverage5",
        "repeats": dict.fromkeys(SUBJECTS, 2),
        "runs": [
            {"subject": subject, "name": name, "split": split, "volumes": VOLUMES, "missing": 0}
            for subject in SUBJECTS
            for name, split in zip(("1", "2"), SPLITS, strict=True)
        ],
        "notes": [],
        "fingerprint": "f",
        "identity": "0123456789abcdef0123",
        "provenance": {
            "root": "some/study",
            "settings": {"map_size": SIZE},
            "files": {"scan.gii": {"size": 2_500_000, "sha256": "0"}},
            "glfa_jax": "1.2.3",
        },
    }
    return Contents(attributes, arrays)


def with_kinds(made: Contents, kinds: tuple[str, ...]) -> None:
    """As stores of today have them, with drift in the maps as scanned and none after cleaning."""
    made.attributes["kinds"] = kinds
    drift, noise = np.linspace(-3, 3, VOLUMES), np.random.default_rng(2).normal(size=VOLUMES)
    shapes = {
        "carpet": np.stack([np.tile(drift, (96, 1)), np.tile(noise, (96, 1))]),
        "course_cleaned": np.tile(noise, 2),
        "tsnr_cleaned": np.full((SIZE, SIZE), 70.0) * MASK,
        "displacement": np.tile(np.where(np.arange(VOLUMES) == 20, 2.0, 0.1), 2),
    }
    states = 2 if "course_cleaned" in kinds else 1
    for subject in SUBJECTS:
        for kind in kinds:
            values = shapes[kind][:states] if kind == "carpet" else shapes[kind]
            made.arrays[f"quality/{kind}/sub-{subject}"] = values
        made.arrays[f"quality/course/sub-{subject}"] = np.tile(drift, 2)


def write_store(path: Path, made: Contents) -> Store:
    attributes = Attributes(**made.attributes)
    mask = made.arrays["mask"]
    with Store.create(path, attributes, mask=mask, frames=FRAMES, resolution=(8, 12)) as writer:
        for name, values in made.arrays.items():
            writer.write(name, values)
    return Store.open(path)


@pytest.fixture(scope="session")
def healthy(tmp_path_factory) -> Store:
    return write_store(tmp_path_factory.mktemp("look") / "healthy.zarr", contents())


@pytest.fixture
def make(tmp_path) -> Callable[[Callable[[Contents], None]], Store]:
    """Writes a store after `change` has spoilt its contents."""

    def write(change: Callable[[Contents], None]) -> Store:
        made = contents()
        change(made)
        return write_store(tmp_path / "made.zarr", made)

    return write
