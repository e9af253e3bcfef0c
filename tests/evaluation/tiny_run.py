"""A finished run as small as that of tests/end_to_end, so that both share compiled programs."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glfa_jax import config, system
from glfa_jax.data.store import Split, Store
from tests import stores
from tests.end_to_end.test_study import TINY
from tests.stages.variants import store_trained

SUBJECTS = ("01", "02", "03")
CLIPS: dict[Split, int] = {"train": 2, "test": 4}


def write_store(
    path: Path, *, identity: str, seed: int, subjects: Sequence[str] = SUBJECTS
) -> Store:
    """Random maps and videos; clips, and subjects if not told, are called the same everywhere."""
    data: Any = TINY["data"]
    side, window = data["map_size"], data["window"]
    rng = np.random.default_rng(seed)
    shown = (data["frames"], *data["resolution"], 3)
    return stores.write_store(
        path,
        identity=identity,
        mask=np.ones((side, side), bool),
        videos={
            split: rng.integers(256, size=(clips, *shown), dtype=np.uint8)
            for split, clips in CLIPS.items()
        },
        maps={
            subject: {
                split: rng.standard_normal((clips, window, side, side)).astype(np.float16)
                for split, clips in CLIPS.items()
            }
            for subject in subjects
        },
    )


def finished(folder: Path, *changes: str) -> config.Config:
    """Random alignment and encoder in front of the foundation's generator, in RUN of `folder`."""
    tree: Any = TINY | {"run_dir": folder / "run", "cotrain": {"steps": 2, "batch_size": 4}}
    tree["data"] = tree["data"] | {"root": folder, "store": folder / "trained.zarr"}
    write_store(folder / "trained.zarr", identity="trained", seed=0)
    settings = config.overridden(config.Config(**tree), changes)
    store_trained(settings, clip_dim=64, tokens=20)
    shutil.copytree(
        settings.foundation / "text-to-video" / "unet",
        system.model_folder(settings, "cotrain") / "unet",
    )
    (settings.run_dir / "config.yaml").write_text(config.dump(settings))
    return settings
