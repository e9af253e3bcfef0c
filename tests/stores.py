"""Prepared stores made of given arrays, for what needs one and no scans."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8

from glfa_jax.data.store import Attributes, Split, Store

CLIP_SECONDS = 2.0


def write_store(
    path: Path,
    *,
    identity: str,
    mask: Bool[np.ndarray, "h w"],
    videos: Mapping[Split, UInt8[np.ndarray, "clips f height width 3"]],
    maps: Mapping[str, Mapping[Split, Float[np.ndarray, "clips w h w2"]]],
    names: Mapping[Split, list[str]] | None = None,
    anatomy: Mapping[str, Mapping[str, Float[np.ndarray, "h w"]]] | None = None,
) -> Store:
    """maps: by subject. What is no number in the train split stays out of the average.

    anatomy: maps by subject and name. names: of the clips, which are their captions as well;
        numbered if left out.
    """
    if names is None:
        names = {split: [f"{split}{i}.mp4" for i in range(len(x))] for split, x in videos.items()}
    first, shown = next(iter(maps.values())), videos["train"]
    attributes = Attributes(
        subjects=tuple(maps),
        repetition_time=1.0,
        lag_seconds=4.0,
        window=first["train"].shape[1],
        clips=dict(names),
        captions=dict(names),
        clip_seconds=CLIP_SECONDS,
        layout="bids",
        space="fsaverage5",
        repeats=dict.fromkeys(maps, 1),
        runs=[
            {"subject": subject, "name": split, "split": split, "volumes": 1, "missing": 0}
            for subject in maps
            for split in videos
        ],
        notes=[],
        fingerprint="f",
        identity=identity,
        provenance={},
        anatomy={subject: list(own) for subject, own in (anatomy or {}).items()},
    )
    size = {"frames": shown.shape[1], "resolution": shown.shape[2:4]}
    with Store.create(path, attributes, mask=mask, **size) as writer:
        for split, video in videos.items():
            writer.write(f"{split}/video", video)
            for subject, own in maps.items():
                writer.write(f"{split}/fmri/sub-{subject}", own[split])
                writer.write(f"{split}/present/sub-{subject}", np.ones(len(video), bool))
        for subject, drawn in (anatomy or {}).items():
            writer.write(f"anatomy/sub-{subject}", np.stack(list(drawn.values())))
        for subject, own in maps.items():
            writer.write(f"train/average/sub-{subject}", np.nanmean(own["train"], axis=0))
    return Store.open(path)
