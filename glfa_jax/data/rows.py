"""From rows of the prepared store, as a stream draws them, to batches of arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from glfa_jax.batch import Batch
from glfa_jax.data.captions import augment as augment_caption
from glfa_jax.data.coverage import Row
from glfa_jax.data.layouts import Split
from glfa_jax.data.store import Store
from glfa_jax.data.video import resize, unit_range

# Up to this size, what a stream needs is read once and kept in memory.
CACHE_BYTES = 2**30

Tokenize = Callable[[Sequence[str]], Int[ndarray, "b n"]]


@dataclass(frozen=True)
class Augment:
    """Stage 1 (SPEC §3): one random frame a clip, randomly cropped, and a reworded caption.

    crop_fraction: of each side that is kept, scaled back to the full image.
    """

    crop_probability: float
    crop_fraction: float


@dataclass(frozen=True)
class Beside:
    """Subjects of another store; clips: of it, place by place the same clips as there."""

    store: Store
    subjects: tuple[str, ...]
    clips: Int[ndarray, " n"]

    def identity(self) -> list[Any]:
        """JSON that tells these windows from others."""
        clips = [int(clip) for clip in self.clips]
        return [self.store.attributes.identity, list(self.subjects), clips]


def _as_row(shown: Any) -> Row:
    """A clip by itself is seen by all subjects."""
    return shown if isinstance(shown, Row) else Row(np.array([shown]), True)


class Assemble:
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
                one_frame(clip, self.augment, rng) for rng, clip in zip(rngs, video, strict=True)
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


def one_frame(
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


class Volumes:
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


class Windows:
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
        self.beside: Windows | None = None
        if beside is not None:
            self.beside = Windows(beside.store, beside.subjects, beside.clips)
            self.same = np.zeros(len(self.present), int)
            self.same[clips] = beside.clips

    def __call__(self, clips: Int[ndarray, " b"]) -> dict[str, ndarray]:
        found = {"fmri": self.read(clips).astype(np.float32), "present": self.present[clips]}
        if self.beside is None:
            return found
        more = self.beside(self.same[clips])
        return {name: np.concatenate([x, more[name]], axis=1) for name, x in found.items()}
