"""From the pieces of the scratch to the store, one shard at a time."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from glfa_jax.data import DataError
from glfa_jax.data.clips import Clips
from glfa_jax.data.correlation import RunningCorrelation
from glfa_jax.data.layouts import SPLITS, Split
from glfa_jax.data.planning import Plan, Window
from glfa_jax.data.signals import Signal
from glfa_jax.data.store import CARPET, SHARD, Writer, drifting_run, shard_length


class Assembly:
    """Writes everything that the plan names; calls `done` with the number of samples written."""

    def __init__(
        self,
        writer: Writer,
        plan: Plan,
        *,
        mask: Bool[ndarray, "h w"],
        window: int,
        done: Callable[[int], Any],
    ):
        self.writer, self.plan = writer, plan
        self.mask, self.window, self.done = mask, window, done

    def write(self, videos: Mapping[str, Clips]) -> None:
        for split in SPLITS:
            for subject in self.plan.subjects:
                self._samples(subject, split)
            self._videos(split, videos)
        for subject in self.plan.subjects:
            self._quality(subject)

    def _samples(self, subject: str, split: Split) -> None:
        """Windows and presence; of train the average, and of test the reliability."""
        keys, shown = self.plan.keys[split], self.plan.shown[subject, split]
        present = np.array([bool(shown.get(key)) for key in keys])
        total = np.zeros((self.window, int(self.mask.sum())))
        agreement = RunningCorrelation(total.shape[1])
        for start in range(0, len(keys), SHARD):
            block = keys[start : start + SHARD]
            cut = np.zeros((len(block), *total.shape), np.float32)
            for i, key in enumerate(block):
                windows = shown.get(key, [])
                read = [self._read(window) for window in windows]
                for values in read:
                    cut[i] += values / len(read)
                if split == "test" and len(read) > 1:
                    agreement.add(np.mean(read[0::2], axis=0), np.mean(read[1::2], axis=0))
            if (peak := np.abs(cut).max(initial=0)) > np.finfo(np.float16).max:
                raise DataError(
                    f"sub-{subject}: a z-score of {peak:.3g}, too large to be stored: a run hardly "
                    "varies but at its end; leave it out"
                )
            total += cut.sum(axis=0, dtype=np.float64)
            self.writer.write(f"{split}/fmri/sub-{subject}", self._draw(cut), start=start)
            self.done(len(block))
        self.writer.write(f"{split}/present/sub-{subject}", present)
        if split == "train":
            self.writer.write(f"train/average/sub-{subject}", self._draw(total / present.sum()))
        else:
            reliability = np.nan_to_num(agreement.result())
            self.writer.write(f"quality/reliability/sub-{subject}", self._draw(reliability))

    def _read(self, window: Window) -> Float[ndarray, "w p"]:
        return window.signal.window(window.first, self.window)

    def _videos(self, split: Split, videos: Mapping[str, Clips]) -> None:
        keys = self.plan.keys[split]
        step = shard_length(int(np.prod(self.writer.sample)))
        for start in range(0, len(keys), step):
            clips = [clip for clip, _ in keys[start : start + step]]
            block = np.empty((len(clips), *self.writer.sample), np.uint8)
            for i, clip in enumerate(clips):
                block[i] = videos[clip].video(clip)
            self.writer.write(f"{split}/video", block, start=start)
            self.done(len(clips))

    def _quality(self, subject: str) -> None:
        signals = [cut.signal for cut in self.plan.cuts if cut.run.subject == subject]
        for kind, images in (
            ("mean", [signal.mean for signal in signals]),
            ("tsnr", [signal.tsnr for signal in signals]),
        ):
            self.writer.write(f"quality/{kind}/sub-{subject}", self._draw(np.mean(images, axis=0)))
        course = np.concatenate([signal.course for signal in signals])
        self.writer.write(f"quality/course/sub-{subject}", course)
        self._kinds(subject, signals)

    def _kinds(self, subject: str, signals: Sequence[Signal]) -> None:
        """What stores of before did not have."""
        about = self.writer.attributes
        for kind in about.kinds:
            name = f"quality/{kind}/sub-{subject}"
            if kind == "carpet":
                chosen = about.runs_of(subject).index(drifting_run(about, subject))
                shown = signals[chosen].array(kind)
                carpet = np.zeros((len(shown), CARPET, shown.shape[2]), np.float32)
                carpet[:, : shown.shape[1]] = shown
                self.writer.write(name, carpet)
            elif kind == "tsnr_cleaned":
                images = [signal.array(kind) for signal in signals]
                self.writer.write(name, self._draw(np.mean(images, axis=0)))
            else:
                courses = [
                    signal.array(kind) if kind in signal.arrays else np.full(signal.kept, np.nan)
                    for signal in signals
                ]
                self.writer.write(name, np.concatenate(courses))

    def _draw(self, values: Float[ndarray, "*b p"]) -> Float[ndarray, "*b h w"]:
        return images_of(values, mask=self.mask)


def images_of(
    values: Float[ndarray, "*b p"], *, mask: Bool[ndarray, "h w"]
) -> Float[ndarray, "*b h w"]:
    """Cortex pixels to images, zero elsewhere."""
    images = np.zeros((*values.shape[:-1], mask.size), np.float32)
    images[..., mask.ravel()] = values
    return images.reshape(*values.shape[:-1], *mask.shape)
