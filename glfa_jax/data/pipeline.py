"""Prepared store to batches. The only file that knows grain.

Batch i, its rows in their order, is a pure function of the seed and i, whatever the number of
processes: samples are shuffled, given their random numbers and batched; then every process takes
its part of the rows, and only those are read.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Generic, TypeVar

import grain
import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from glfa_jax.batch import Batch
from glfa_jax.data import DataError
from glfa_jax.data.captions import thesaurus
from glfa_jax.data.coverage import Mixed, Rotation
from glfa_jax.data.layouts import Split
from glfa_jax.data.rows import Assemble, Augment, Beside, Tokenize, Volumes, Windows
from glfa_jax.data.store import Store

# Batches made ahead, and threads that make them.
AHEAD, THREADS = 4, 2

T = TypeVar("T")


class Stream(Generic[T]):
    """An iterator over batches that can be stopped and continued at the very sample.

    fingerprint: of the data and of every setting that decides the order.
    num_batches: of this process; None where the stream never ends.
    """

    def __init__(self, dataset: Any, *, fingerprint: str, num_batches: int | None):
        self.fingerprint = fingerprint
        self.num_batches = num_batches
        options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=AHEAD)
        self._iterator = iter(dataset.to_iter_dataset(options))

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        return next(self._iterator)

    def get_state(self) -> dict[str, Any]:
        """What to put into a checkpoint, as JSON: the number of batches taken, and the fingerprint.

        Training processes take batches in step, so one process's state serves any number of them.
        """
        return {**self._iterator.get_state(), "fingerprint": self.fingerprint}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues where `get_state` was taken; rejects the state of another stream."""
        place = dict(state)
        if place.pop("fingerprint", None) != self.fingerprint:
            raise DataError(
                "the data stream of the checkpoint had another seed, store, batch size or subjects "
                "and cannot be continued; restore the settings it was made with"
            )
        self._iterator.set_state(place)


def batches(
    store: Store,
    *,
    subjects: Sequence[str],
    split: Split,
    batch_size: int,
    seed: int,
    tokenize: Tokenize,
    augment: Augment | None,
    shuffle: bool,
    repeat: bool,
    paired_fraction: float = 1.0,
    latents: bool = False,
    process_index: int = 0,
    process_count: int = 1,
) -> Stream[Batch]:
    """Clips with windows of all `subjects`.

    `batch_size` counts fMRI windows over all subjects and processes: a batch has
    batch_size / subjects / processes rows. Without `repeat` the last batch may be smaller.
    Of a batch's rows over all processes, round(paired_fraction * rows) hold one clip that all
    subjects have seen, the others a different clip of each subject (`coverage.Rotation`); fewer
    than all only where it shuffles and repeats. `latents`: the store's, in place of video.
    """
    per_row = len(subjects) * process_count
    if batch_size % per_row or not batch_size:
        raise DataError(
            f"batch_size: {batch_size} is no multiple of {len(subjects)} subjects x "
            f"{process_count} processes"
        )
    if latents and not store.has_latents(split):
        raise DataError(f"{store.path}: holds no {split} latents; run train.latents")
    rows = batch_size // len(subjects)
    # One subject's clips are as different paired as not.
    paired = rows if len(subjects) == 1 else round(paired_fraction * rows)
    if paired < rows and not (shuffle and repeat):
        raise DataError("paired_fraction: must be 1 where clips are neither shuffled nor repeated")
    present = store.present(split, subjects=subjects)
    clips = np.flatnonzero(present.all(axis=1))
    if paired and not len(clips):
        raise DataError(f"{store.path}: no {split} clip was seen by all of {', '.join(subjects)}")
    if split == "train":
        store.average(subjects=subjects)  # rejected here where it is no number
    dataset = _ordered(clips, seed=seed, shuffle=shuffle, repeat=repeat)
    if paired < rows:
        for subject, column in zip(subjects, present.T, strict=True):
            if not column.any():
                raise DataError(f"{store.path}: has no {split} sample of {subject}")
        mixed = Mixed(dataset, Rotation(present, seed=seed), rows=rows, paired=paired)
        dataset = _ordered(mixed, seed=seed, shuffle=False, repeat=False)
    if augment is not None:
        dataset = dataset.random_map(_draw)
    dataset = dataset.batch(rows, drop_remainder=repeat, batch_fn=list)
    dataset = dataset.map(Share(process_index, process_count))
    dataset = dataset.map(Assemble(store, split, tuple(subjects), tokenize, augment, latents))
    fingerprint = _fingerprint(
        store,
        kind="batches",
        subjects=list(subjects),
        split=split,
        batch_size=batch_size,
        seed=seed,
        augment=augment and {**asdict(augment), "thesaurus": thesaurus()},
        shuffle=shuffle,
        repeat=repeat,
        paired=paired,
        latents=store.latents_of(split) if latents else None,
    )
    return Stream(dataset, fingerprint=fingerprint, num_batches=None if repeat else len(dataset))


def volumes(
    store: Store,
    *,
    subjects: Sequence[str],
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Stream[dict[str, Float[ndarray, "b h w"]]]:
    """Single volumes of the train split of `subjects`, shuffled, for ever: {"fmri": (b, h, w)}.

    The test split cannot be asked for: pretraining never sees it.
    """
    present = store.present("train", subjects=subjects)
    window = store.attributes.window
    clip, subject = np.nonzero(present)
    rows = np.stack([np.repeat(clip, window), np.repeat(subject, window)], axis=1)
    rows = np.concatenate([rows, np.tile(np.arange(window), len(clip))[:, None]], axis=1)
    store.average(subjects=subjects)  # rejected here where there is none, or it is no number
    return _endless(
        store,
        rows,
        Volumes(store, tuple(subjects)),
        batch_size=batch_size,
        seed=seed,
        share=Share(process_index, process_count),
        kind="volumes",
        subjects=list(subjects),
    )


def windows(
    store: Store,
    *,
    subjects: Sequence[str],
    clips: Int[ndarray, " n"],
    batch_size: int,
    seed: int,
    beside: Beside | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Stream[dict[str, ndarray]]:
    """Windows of the given train clips alone, shuffled, for ever: batch_size clips a batch.

    {"fmri": (b, s, w, h, w), "present": (b, s) bool, whether the subject has the clip}. The
    subjects of `beside` come last.
    """
    if not len(clips):
        raise DataError(f"{store.path}: no train clip to take windows of")
    return _endless(
        store,
        np.asarray(clips),
        Windows(store, tuple(subjects), np.asarray(clips), beside),
        batch_size=batch_size,
        seed=seed,
        share=Share(process_index, process_count),
        kind="windows",
        subjects=list(subjects),
        clips=[int(clip) for clip in clips],
        **({} if beside is None else {"beside": beside.identity()}),
    )


def _endless(
    store: Store,
    rows: ndarray,
    assemble: Callable[[Any], T],
    *,
    batch_size: int,
    seed: int,
    share: "Share",
    **settings: Any,
) -> Stream[T]:
    """Rows shuffled, for ever, batch_size a batch over all processes; settings: of the order."""
    if batch_size % share.count or not batch_size:
        raise DataError(f"batch_size: {batch_size} is no multiple of {share.count} processes")
    dataset = _ordered(rows, seed=seed, shuffle=True, repeat=True)
    dataset = dataset.batch(batch_size, drop_remainder=True, batch_fn=np.stack)
    dataset = dataset.map(share).map(assemble)
    fingerprint = _fingerprint(store, batch_size=batch_size, seed=seed, **settings)
    return Stream(dataset, fingerprint=fingerprint, num_batches=None)


def _ordered(source: Any, *, seed: int, shuffle: bool, repeat: bool) -> Any:
    dataset = grain.MapDataset.source(source).seed(seed)
    if shuffle:
        dataset = dataset.shuffle()
    return dataset.repeat() if repeat else dataset


def _draw(shown: T, rng: np.random.Generator) -> tuple[T, int]:
    """A clip or a row with the seed of all that is random about this showing of it."""
    return shown, int(rng.integers(2**63))


class Share:
    """One process's rows of a batch, side by side: all processes' in order are the batch."""

    def __init__(self, index: int, count: int):
        self.index, self.count = index, count

    def __call__(self, rows: Any) -> Any:
        first, last = (len(rows) * i // self.count for i in (self.index, self.index + 1))
        return rows[first:last]


def _fingerprint(store: Store, **settings: Any) -> str:
    text = json.dumps({"store": store.attributes.identity, **settings}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
