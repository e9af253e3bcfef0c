"""A finished run as small as that of tests/end_to_end, so that both share compiled programs."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from glfa_jax import config, system
from glfa_jax.data.store import Attributes, Store
from tests.end_to_end.test_study import TINY
from tests.train.variants import store_trained

SUBJECTS = ("01", "02", "03")
CLIPS = {"train": 2, "test": 4}


def write_store(path: Path, *, identity: str, seed: int) -> Store:
    """Random maps and videos of subjects who are called the same in every store."""
    data: Any = TINY["data"]
    side, window = data["raster"], data["window"]
    rng = np.random.default_rng(seed)
    names = {split: [f"{split}{i}.mp4" for i in range(n)] for split, n in CLIPS.items()}
    attributes = Attributes(
        subjects=SUBJECTS,
        repetition_time=1.0,
        lag_seconds=4.0,
        window=window,
        clips=names,
        captions=names,
        clip_seconds=2.0,
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
        identity=identity,
        provenance={},
    )
    size = {"frames": data["frames"], "resolution": tuple(data["resolution"])}
    mask = np.ones((side, side), bool)
    with Store.create(path, attributes, mask=mask, **size) as writer:
        for split, clips in CLIPS.items():
            shape = (clips, size["frames"], *size["resolution"], 3)
            writer.write(f"{split}/video", rng.integers(256, size=shape, dtype=np.uint8))
            for subject in SUBJECTS:
                maps = rng.standard_normal((clips, window, side, side)).astype(np.float16)
                writer.write(f"{split}/fmri/sub-{subject}", maps)
                writer.write(f"{split}/present/sub-{subject}", np.ones(clips, bool))
                if split == "train":
                    writer.write(f"train/average/sub-{subject}", maps.mean(0))
    return Store.open(path)


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
