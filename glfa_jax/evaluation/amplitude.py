"""The amplitude of the maps that are decoded, which averaging over repeats makes smaller.

Encoders learn from single showings, z-scored within their run. The average of n showings has the
same signal and a part of the noise: of maps in which a share r of the variance is signal, it keeps
r + (1 - r) / n of the variance. `evaluation.test_maps` says what is done about it:

    averaged    nothing
    z-scored    (map - mean) / deviation, both of the pixel, over all test maps of the subject
    rescaled    map · factor, one number a subject: the deviation of the training subjects' training
                maps over that of the subject's test maps, each over time and mean over pixels

The last two look at all test maps of a subject to decode one, but at nothing else of the test
split: they are transductive in the fMRI, as z-scoring within a test run is already.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from glfa_jax import config
from glfa_jax.data.layouts import Split
from glfa_jax.data.store import Store

CLIPS = 64  # read at a time


@dataclass(frozen=True, eq=False)
class Rescaling:
    """(map - offset) · factor, both of the pixel or of all."""

    offset: Float[ndarray, "*pixels"]
    factor: Float[ndarray, "*pixels"]

    def __call__(self, maps: Float[ndarray, "*b h w"]) -> Float[ndarray, "*b h w"]:
        """float32; exactly the maps, of their own type, where there is nothing to do."""
        if not self.offset.any() and (self.factor == 1).all():
            return maps
        return ((maps.astype(np.float32) - self.offset) * self.factor).astype(np.float32)


def rescaling(
    kind: str, *, decoded: Store, subject: str, trained: Store, train_subjects: Sequence[str]
) -> Rescaling:
    """What `evaluation.test_maps` asks for.

    decoded: the store of the subject's test maps. trained: that of the training subjects.
    """
    if kind == "averaged":
        return Rescaling(np.zeros(()), np.ones(()))
    mean, deviation = moments(decoded, "test", subject)
    if kind == "z-scored":
        factor = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 0)
        return Rescaling(mean, factor)
    theirs = [spread(trained, "train", name) for name in train_subjects]
    ours = _size(deviation, decoded)
    return Rescaling(np.zeros(()), np.array(np.mean(theirs) / ours if ours > 0 else 1.0))


def rescalings(settings: config.Config, *, decoded: Store, trained: Store) -> dict[str, Rescaling]:
    """Of every test subject."""
    protocol = settings.protocol
    return {
        subject: rescaling(
            settings.evaluation.test_maps,
            decoded=decoded,
            subject=subject,
            trained=trained,
            train_subjects=protocol.train_subjects,
        )
        for subject in protocol.test_subjects
    }


def spread(store: Store, split: Split, subject: str) -> float:
    """Standard deviation over the maps of all windows, mean over cortex pixels."""
    return _size(moments(store, split, subject)[1], store)


def _size(deviation: Float[ndarray, "h w"], store: Store) -> float:
    return float(deviation[store.mask].mean())


def moments(
    store: Store, split: Split, subject: str
) -> tuple[Float[ndarray, "h w"], Float[ndarray, "h w"]]:
    """Mean and standard deviation of every pixel over the maps of a subject's windows."""
    clips = np.flatnonzero(store.present(split, subjects=[subject])[:, 0])
    total = square = np.zeros(store.mask.shape)
    for start in range(0, len(clips), CLIPS):
        part = clips[start : start + CLIPS]
        maps = store.fmri(split, part, subjects=[subject])[:, 0].astype(np.float64)
        total = total + maps.sum(axis=(0, 1))
        square = square + np.square(maps).sum(axis=(0, 1))
    count = max(len(clips) * store.attributes.window, 1)
    mean = total / count
    variance = np.maximum(square / count - np.square(mean), 0)
    return mean, np.sqrt(variance)
