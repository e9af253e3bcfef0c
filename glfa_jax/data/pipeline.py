"""Prepared store to batches. The only file that knows grain.

Batch i, its rows in their order, is a pure function of the seed and i, whatever the number of
processes: samples are shuffled, given their random numbers and batched; then every process takes
its part of the rows, and only those are read.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Generic, TypeVar, cast

import grain
import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from glfa_jax.batch import Batch
from glfa_jax.data import DataError
from glfa_jax.data.captions import augment as augment_caption
from glfa_jax.data.captions import thesaurus
from glfa_jax.data.coverage import Mixed, Rotation, Row
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
        store.average(subjects=subjects)  # refused here where it is no number
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
    dataset = dataset.map(_Share(process_index, process_count))
    dataset = dataset.map(_Assemble(store, split, tuple(subjects), tokenize, augment, latents))
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
    if batch_size % process_count or not batch_size:
        raise DataError(f"batch_size: {batch_size} is no multiple of {process_count} processes")
    present = store.present("train", subjects=subjects)
    window = store.attributes.window
    clip, subject = np.nonzero(present)
    rows = np.stack([np.repeat(clip, window), np.repeat(subject, window)], axis=1)
    rows = np.concatenate([rows, np.tile(np.arange(window), len(clip))[:, None]], axis=1)
    store.average(subjects=subjects)  # refused here where there is none, or it is no number
    dataset = _ordered(rows, seed=seed, shuffle=True, repeat=True)
    dataset = dataset.batch(batch_size, drop_remainder=True, batch_fn=np.stack)
    dataset = dataset.map(_Share(process_index, process_count))
    dataset = dataset.map(_Volumes(store, tuple(subjects)))
    fingerprint = _fingerprint(
        store, kind="volumes", subjects=list(subjects), batch_size=batch_size, seed=seed
    )
    return Stream(dataset, fingerprint=fingerprint, num_batches=None)


@dataclass(frozen=True)
class Beside:
    """Subjects of another store; clips: of it, place by place the same clips as there."""

    store: Store
    subjects: tuple[str, ...]
    clips: Int[ndarray, " n"]


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
    if batch_size % process_count or not batch_size:
        raise DataError(f"batch_size: {batch_size} is no multiple of {process_count} processes")
    if not len(clips):
        raise DataError(f"{store.path}: no train clip to take windows of")
    dataset = _ordered(np.asarray(clips), seed=seed, shuffle=True, repeat=True)
    dataset = dataset.batch(batch_size, drop_remainder=True, batch_fn=np.array)
    dataset = dataset.map(_Share(process_index, process_count))
    dataset = dataset.map(_Windows(store, tuple(subjects), np.asarray(clips), beside))
    fingerprint = _fingerprint(
        store,
        kind="windows",
        subjects=list(subjects),
        clips=[int(clip) for clip in clips],
        batch_size=batch_size,
        seed=seed,
        **({} if beside is None else {"beside": _told(beside)}),
    )
    return Stream(dataset, fingerprint=fingerprint, num_batches=None)


def _ordered(source: Any, *, seed: int, shuffle: bool, repeat: bool) -> Any:
    dataset = grain.MapDataset.source(source).seed(seed)
    if shuffle:
        dataset = dataset.shuffle()
    return dataset.repeat() if repeat else dataset


def _draw(shown: T, rng: np.random.Generator) -> tuple[T, int]:
    """A clip or a row with the seed of all that is random about this showing of it."""
    return shown, int(rng.integers(2**63))


class _Share:
    """One process's rows of a batch, side by side: all processes' in order are the batch."""

    def __init__(self, index: int, count: int):
        self.index, self.count = index, count

    def __call__(self, rows: Any) -> Any:
        first, last = (len(rows) * i // self.count for i in (self.index, self.index + 1))
        return rows[first:last]


def _as_row(shown: Any) -> Row:
    """A clip by itself is seen by all subjects."""
    return shown if isinstance(shown, Row) else Row(np.array([shown]), True)


def unit_range(video: UInt8[ndarray, "*b h w 3"]) -> Float[ndarray, "*b h w 3"]:
    """RGB from 0 ... 255 to [-1, 1]."""
    return video.astype(np.float32) / np.float32(127.5) - 1


def _fingerprint(store: Store, **settings: Any) -> str:
    text = json.dumps({"store": store.attributes.identity, **settings}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class _Assemble:
    """Rows to a Batch."""

    def __init__(
        self,
        store: Store,
        split: Split,
        subjects: tuple[str, ...],
        tokenize: Tokenize,
        augment: Augment | None,
        latents: bool,
    ):
        self.store, self.subjects = store, subjects
        self.split: Split = split
        self.captions = store.attributes.captions[split]
        self.tokenize, self.augment = tokenize, augment
        self.video = partial(store.video, split)
        self.kept_fmri: ndarray | None = None
        self.latents: Callable[..., Any] | None = None
        every = range(len(self.captions))
        if store.num_bytes(split, subjects=subjects) <= CACHE_BYTES:
            self.kept_fmri = store.fmri(split, every, subjects=subjects)
            if not latents:
                self.video = self.video(every).__getitem__
        if latents:
            self.video = partial(_no_frames, store.sample)
            self.latents = read = cast(Callable[..., ndarray], partial(store.latents, split))
            if len(every) * read([0]).nbytes <= CACHE_BYTES:
                self.latents = read(every).__getitem__
        # Unchanged captions are tokenised once.
        self.tokens = tokenize(self.captions) if augment is None else None

    def __call__(self, drawn: list[Any]) -> Batch:
        seeds = None if self.augment is None else [seed for _, seed in drawn]
        rows = [_as_row(shown) for shown in (drawn if seeds is None else [x for x, _ in drawn])]
        # Every clip is read once a row: `shown` counts them, `place` spreads them over the columns.
        shown = np.concatenate([row.clips[:1] if row.paired else row.clips for row in rows])
        firsts = np.cumsum([0, *(1 if row.paired else len(row.clips) for row in rows)])
        place = np.stack(
            [
                first + np.arange(len(row.clips)) * (not row.paired)
                for row, first in zip(rows, firsts[:-1], strict=True)
            ]
        )
        video = self.video(shown)
        if self.augment is None or seeds is None:
            tokens = self.tokens[shown]  # type: ignore[index]
        else:
            rngs = [
                np.random.default_rng(seed if row.paired else [seed, column])
                for row, seed in zip(rows, seeds, strict=True)
                for column in range(1 if row.paired else len(row.clips))
            ]
            pairs = list(zip(rngs, shown, strict=True))
            captions = [augment_caption(self.captions[clip], rng=rng) for rng, clip in pairs]
            tokens = self.tokenize(captions)
            frames = [
                _one_frame(clip, self.augment, rng) for rng, clip in zip(rngs, video, strict=True)
            ]
            video = np.stack(frames)
        clips = shown[place]
        fields: dict[str, Any] = {
            "fmri": self.fmri(clips).astype(np.float32),
            "video": unit_range(video)[place],
            "tokens": np.asarray(tokens, np.int32)[place],
            "clip": clips.astype(np.int32),
            "paired": np.array([row.paired for row in rows]),
            "latents": None if self.latents is None else self.latents(shown)[place],
        }
        return Batch(**fields)

    def fmri(self, clips: Int[ndarray, "b v"]) -> Float[ndarray, "b s w h w2"]:
        if self.kept_fmri is not None:
            return self.kept_fmri[clips, np.arange(len(self.subjects))]
        if clips.shape[1] == 1:
            return self.store.fmri(self.split, clips[:, 0], subjects=self.subjects)
        windows = [
            self.store.fmri(self.split, column, subjects=[subject])[:, 0]
            for column, subject in zip(clips.T, self.subjects, strict=True)
        ]
        return np.stack(windows, axis=1)


def _no_frames(sample: tuple[int, ...], clips: Int[ndarray, " b"]) -> UInt8[ndarray, "b f h w 3"]:
    return np.zeros((len(clips), 0, *sample[1:]), np.uint8)


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


def _fits(store: Store, windows: int) -> bool:
    """Whether so many windows, in float16, may be kept in memory."""
    return windows * store.attributes.window * store.mask.size * 2 <= CACHE_BYTES


class _Volumes:
    """Rows (clip, subject number, place in the window) to volumes."""

    def __init__(self, store: Store, subjects: tuple[str, ...]):
        self.store, self.subjects, self.kept = store, subjects, None
        samples = store.num_clips("train")
        if _fits(store, samples * len(subjects)):
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


def _told(beside: Beside) -> list[Any]:
    clips = [int(clip) for clip in beside.clips]
    return [beside.store.attributes.identity, list(beside.subjects), clips]


class _Windows:
    """Clips to windows of all subjects."""

    def __init__(
        self,
        store: Store,
        subjects: tuple[str, ...],
        clips: Int[ndarray, " n"],
        beside: Beside | None = None,
    ):
        self.present = store.present("train", subjects=subjects)
        self.read: Callable[..., ndarray] = partial(store.fmri, "train", subjects=subjects)
        if _fits(store, len(clips) * len(subjects)):
            kept, place = self.read(clips), np.zeros(len(self.present), int)
            place[clips] = np.arange(len(clips))
            self.read = lambda chosen: kept[place[chosen]]
        self.beside: _Windows | None = None
        if beside is not None:
            self.beside = _Windows(beside.store, beside.subjects, beside.clips)
            self.same = np.zeros(len(self.present), int)
            self.same[clips] = beside.clips

    def __call__(self, clips: Int[ndarray, " b"]) -> dict[str, ndarray]:
        found = {"fmri": self.read(clips).astype(np.float32), "present": self.present[clips]}
        if self.beside is None:
            return found
        more = self.beside(self.same[clips])
        return {name: np.concatenate([x, more[name]], axis=1) for name, x in found.items()}
