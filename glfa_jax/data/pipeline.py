"""Prepared store to batches. The only file that knows grain.

Batch i is a pure function of the seed and i, whatever the number of processes: samples are
shuffled, given their random numbers, and only then dealt out to processes and batched.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import grain
import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from glfa_jax.batch import Batch
from glfa_jax.data import DataError
from glfa_jax.data.captions import augment as augment_caption
from glfa_jax.data.captions import thesaurus
from glfa_jax.data.layouts import Split
from glfa_jax.data.store import Store
from glfa_jax.data.video import resize

# Up to this size, what a stream needs is read once and kept in memory.
CACHE_BYTES = 2**30
# Batches made ahead, and threads that make them.
AHEAD, THREADS = 4, 2

T = TypeVar("T")
Tokenize = Callable[[Sequence[str]], Int[ndarray, "b n"]]


@dataclass(frozen=True)
class Augment:
    """Stage 1 (SPEC §3): one random frame a clip, randomly cropped, and a reworded caption.

    crop_fraction: of each side that is kept, scaled back to the full picture.
    """

    crop_probability: float
    crop_fraction: float


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
        """Continues where `get_state` was taken; refuses the state of another stream."""
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
    process_index: int = 0,
    process_count: int = 1,
) -> Stream[Batch]:
    """Clips that all `subjects` have seen, each with every subject's window.

    `batch_size` counts fMRI windows over all subjects and processes: a batch has
    batch_size / subjects / processes clips. Without `repeat` the last batch may be smaller.
    """
    per_clip = len(subjects) * process_count
    if batch_size % per_clip or not batch_size:
        raise DataError(
            f"batch_size: {batch_size} is no multiple of {len(subjects)} subjects x "
            f"{process_count} processes"
        )
    clips = np.flatnonzero(store.present(split, subjects=subjects).all(axis=1))
    if not len(clips):
        raise DataError(f"{store.path}: no {split} clip was seen by all of {', '.join(subjects)}")
    assemble = _Assemble(store, split, tuple(subjects), tokenize, augment)
    dataset = _ordered(clips, seed=seed, shuffle=shuffle, repeat=repeat)
    if augment is not None:
        dataset = dataset.random_map(_draw)
    dataset = dataset[process_index::process_count]
    dataset = dataset.batch(batch_size // per_clip, drop_remainder=repeat, batch_fn=list)
    dataset = dataset.map(assemble)
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
    if batch_size % process_count or not batch_size:
        raise DataError(f"batch_size: {batch_size} is no multiple of {process_count} processes")
    present = store.present("train", subjects=subjects)
    window = store.attributes.window
    clip, subject = np.nonzero(present)
    rows = np.stack([np.repeat(clip, window), np.repeat(subject, window)], axis=1)
    rows = np.concatenate([rows, np.tile(np.arange(window), len(clip))[:, None]], axis=1)
    if not len(rows):
        raise DataError(f"{store.path}: has no train sample of {', '.join(subjects)}")
    dataset = _ordered(rows, seed=seed, shuffle=True, repeat=True)
    dataset = dataset[process_index::process_count]
    dataset = dataset.batch(batch_size // process_count, drop_remainder=True, batch_fn=np.stack)
    dataset = dataset.map(_Volumes(store, tuple(subjects)))
    fingerprint = _fingerprint(
        store, kind="volumes", subjects=list(subjects), batch_size=batch_size, seed=seed
    )
    return Stream(dataset, fingerprint=fingerprint, num_batches=None)


def _ordered(source: Any, *, seed: int, shuffle: bool, repeat: bool) -> Any:
    dataset = grain.MapDataset.source(source).seed(seed)
    if shuffle:
        dataset = dataset.shuffle()
    return dataset.repeat() if repeat else dataset


def _draw(clip: int, rng: np.random.Generator) -> tuple[int, int]:
    """A clip with the seed of all that is random about this showing of it."""
    return clip, int(rng.integers(2**63))


def _fingerprint(store: Store, **settings: Any) -> str:
    text = json.dumps({"store": store.attributes.identity, **settings}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class _Assemble:
    """Clip numbers to a Batch."""

    def __init__(
        self,
        store: Store,
        split: Split,
        subjects: tuple[str, ...],
        tokenize: Tokenize,
        augment: Augment | None,
    ):
        self.captions = store.attributes.captions[split]
        self.tokenize, self.augment = tokenize, augment
        self.video = partial(store.video, split)
        self.fmri = partial(store.fmri, split, subjects=subjects)
        if store.num_bytes(split, subjects=subjects) <= CACHE_BYTES:
            every = range(len(self.captions))
            self.video, self.fmri = self.video(every).__getitem__, self.fmri(every).__getitem__
        # Unchanged captions are tokenised once.
        self.tokens = tokenize(self.captions) if augment is None else None

    def __call__(self, drawn: list[Any]) -> Batch:
        seeds = None if self.augment is None else [seed for _, seed in drawn]
        clips = np.array(drawn if self.augment is None else [clip for clip, _ in drawn])
        video = self.video(clips)
        if self.augment is None or seeds is None:
            tokens = self.tokens[clips]  # type: ignore[index]
        else:
            rngs = [np.random.default_rng(seed) for seed in seeds]
            pairs = list(zip(rngs, clips, strict=True))
            captions = [augment_caption(self.captions[clip], rng=rng) for rng, clip in pairs]
            tokens = self.tokenize(captions)
            frames = [
                _one_frame(clip, self.augment, rng) for rng, clip in zip(rngs, video, strict=True)
            ]
            video = np.stack(frames)
        fields: dict[str, Any] = {
            "fmri": self.fmri(clips).astype(np.float32),
            "video": video.astype(np.float32) / np.float32(127.5) - 1,
            "tokens": np.asarray(tokens, np.int32),
            "clip": clips.astype(np.int32),
        }
        return Batch(**fields)


def _one_frame(
    clip: UInt8[ndarray, "f h w 3"], augment: Augment, rng: np.random.Generator
) -> UInt8[ndarray, "1 h w 3"]:
    frame = clip[rng.integers(len(clip))][None]
    if rng.random() >= augment.crop_probability:
        return frame
    full = frame.shape[1:3]
    kept = [max(round(side * augment.crop_fraction), 1) for side in full]
    top, left = (int(rng.integers(a - b + 1)) for a, b in zip(full, kept, strict=True))
    cropped = frame[:, top : top + kept[0], left : left + kept[1]]
    return resize(cropped, resolution=full)


class _Volumes:
    """Rows (clip, subject number, place in the window) to volumes."""

    def __init__(self, store: Store, subjects: tuple[str, ...]):
        self.store, self.subjects, self.kept = store, subjects, None
        samples = store.num_clips("train")
        size = samples * len(subjects) * store.attributes.window * store.mask.size * 2
        if size <= CACHE_BYTES:
            self.kept = store.fmri("train", range(samples), subjects=subjects)

    def __call__(self, rows: Int[ndarray, "b 3"]) -> dict[str, Float[ndarray, "b h w"]]:
        if self.kept is not None:
            return {"fmri": self.kept[tuple(rows.T)].astype(np.float32)}
        fmri = np.empty((len(rows), *self.store.mask.shape), np.float32)
        for number, subject in enumerate(self.subjects):
            mine = rows[:, 1] == number
            fmri[mine] = self.store.volumes(
                "train", subject=subject, clips=rows[mine, 0], positions=rows[mine, 2]
            )
        return {"fmri": fmri}
