"""Which clips a new subject's layer is fitted to, and of whose the maps are compared with his."""

import math
from collections import Counter

import numpy as np

from glfa_jax import alignments, config
from glfa_jax.data.layouts import Split
from glfa_jax.data.store import Store
from glfa_jax.errors import InputError
from glfa_jax.stages.fitting import Shared
from glfa_jax.trained.data import clips_filling


def clips_of(store: Store, *, subject: str, minutes: float, split: Split = "train") -> np.ndarray:
    """The subject's first clips of the split, as many as fill the minutes with video."""
    (present,) = np.nonzero(store.present(split, subjects=[subject])[:, 0])
    count = clips_filling(
        minutes,
        seconds=store.attributes.clip_seconds,
        clips=len(present),
        key="--minutes",
        these=f"all the {'training' if split == 'train' else 'test'} clips of subject {subject} "
        f"in {store.path}",
    )
    return present[:count]


def clips_to_fit(
    settings: config.Config, store: Store, new: Store, *, subject: str, minutes: float
) -> Shared:
    """The clips whose maps the layer is fitted to: none where it is fitted to no fMRI."""
    data = alignments.data_for_strangers(settings)
    if data == "anatomy":
        validate_alike(store, new)
        return Shared(*np.zeros((2, 0), int))
    split: Split = "test" if data == "unlabelled-test" else "train"
    clips = clips_of(new, subject=subject, minutes=minutes, split=split)
    if data != "paired":
        validate_alike(store, new)
        return Shared(clips, clips)
    shared = shared_clips(store, new, clips=clips, others=settings.protocol.train_subjects)
    if not len(shared.theirs):
        raise InputError(
            f"--minutes: no training subject has seen the first {minutes:g} minutes of subject "
            f"{subject} in {new.path}, so there is nothing to pair them with; --method warp "
            "--data unlabelled needs no clips in common"
        )
    return shared


def shared_clips(store: Store, new: Store, *, clips: np.ndarray, others: tuple[str, ...]) -> Shared:
    """Those of the new subject's `clips` that one of the others saw as well.

    In another store than that of training, the same showing of a clip of the same name. Raises
    InputError where that cannot be.
    """
    theirs = own = clips
    if new is not store:
        validate_alike(store, new)
        shown, places = _showings(new), {x: i for i, x in enumerate(_showings(store))}
        own = np.array([clip for clip in clips if shown[clip] in places], int)
        theirs = np.array([places[shown[clip]] for clip in own], int)
        captions, trained = (x.attributes.captions["train"] for x in (new, store))
        for i, j in zip(own, theirs, strict=True):
            if captions[i] != trained[j]:
                raise InputError(
                    f"{new.path}: clip {shown[i][0]} is {captions[i]!r}, but {trained[j]!r} in "
                    f"{store.path}; clips of one name must be the same"
                )
    seen = store.present("train", subjects=others)[theirs].any(axis=1)
    return Shared(theirs[seen], own[seen])


def validate_alike(store: Store, new: Store) -> None:
    """Raises InputError for a store whose maps mean something else than those of training."""
    if not np.array_equal(new.mask, store.mask):
        raise InputError(
            f"{new.path}: its maps show another part of the cortex than those of {store.path}; "
            "prepare it with the same data.surfaces and data.region"
        )
    for what in ("repetition_time", "lag_seconds"):
        given, wanted = (getattr(x.attributes, what) for x in (new, store))
        if not math.isclose(given, wanted, rel_tol=1e-3):
            raise InputError(
                f"{new.path}: has {what} of {given:g} s, but {store.path} of {wanted:g} s; "
                "windows must show the same moments"
            )


def _showings(store: Store) -> list[tuple[str, int]]:
    """Of every training sample, its clip and how often that was shown before."""
    before: Counter[str] = Counter()
    found = []
    for clip in store.attributes.clips["train"]:
        found.append((clip, before[clip]))
        before[clip] += 1
    return found
