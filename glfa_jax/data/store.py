"""The prepared data: one Zarr v3 group that zarr, xarray and TensorStore open.

    mask                       (row, column) uint8            cortex on the flat map
    {train,test}/video         (clip, frame, height, width, channel) uint8
    {train,test}/fmri/sub-XX   (clip, window, row, column) float16    z-scored, zero off the mask
    {train,test}/present/sub-XX  (clip) bool                  whether the subject has the sample
    train/latents              (clip, frame, height, width, channel) float32   only where asked for
    train/average/sub-XX       (window, row, column) float32  mean over the subject's train samples
    anatomy/sub-XX             (map, row, column) float32     curvature and the like, if any
    quality/mean/sub-XX        (row, column) float32          raw signal, mean over volumes and runs
    quality/tsnr/sub-XX        (row, column) float32          mean over spread, mean over runs
    quality/reliability/sub-XX (row, column) float32          correlation of odd and even repeats
    quality/course/sub-XX      (volume) float32               mean of the cortex, per cent change
    quality/carpet/sub-XX      (state, pixel, volume) float32 some pixels of one run
    quality/displacement/sub-XX  (volume) float32             of the head, mm, NaN where unknown
    quality/tsnr_cleaned/sub-XX, quality/course_cleaned/sub-XX     after cleaning

One sample is one chunk; `SHARD` samples share a file, fewer where they are large. `clip` counts
samples: in the train split every showing of a clip is its own sample, in the test split repeats
are averaged. What `quality` holds is there to be looked at and enters no training.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorstore as ts
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray

from glfa_jax.data import DataError
from glfa_jax.data.attributes import Attributes, StoredRun, read_attributes, write_group
from glfa_jax.data.latents import open_latents, stored_vae
from glfa_jax.data.layouts import SPLITS, Split
from glfa_jax.data.zarr import Layout, declared_shape, reading, writing
from glfa_jax.files import whole_folder

SHARD = 64
SHARD_BYTES = 2**27  # a shard is held in memory, packed and unpacked, when it is written

# mean: in the scanner's units. tsnr: of one volume, over time. reliability: Pearson correlation,
# over the volumes of all test samples, of the average over odd with that over even repeats; zero
# for a subject without repeats. course: of the volumes that were z-scored, runs one after another
# in the order of `Attributes.runs`, change from each run's mean; zero where that is not positive.
# All of these as scanned. What `Attributes.kinds` names is there besides: carpet: z-scores of the
# run that `drifting_run` gives, as scanned and, where it was cleaned, after that.
Quality = Literal[
    "mean",
    "tsnr",
    "reliability",
    "course",
    "carpet",
    "displacement",
    "tsnr_cleaned",
    "course_cleaned",
]
ALWAYS: tuple[Quality, ...] = ("mean", "tsnr", "reliability", "course")
COURSES = ("course", "course_cleaned", "displacement")  # one value a volume
CARPET = 96  # pixels, at most


def drifting_run(attributes: Attributes, subject: str) -> StoredRun:
    """The run of a subject whose carpet is kept: where there is most drift to be seen."""
    return max(attributes.runs_of(subject), key=lambda run: run.get("drift", 0.0))


def shard_length(sample_bytes: int) -> int:
    """Samples that share a file: a power of two."""
    length = SHARD
    while length > 1 and length * sample_bytes > SHARD_BYTES:
        length //= 2
    return length


def layouts(
    attributes: Attributes, *, mask: tuple[int, ...], sample: tuple[int, ...]
) -> dict[str, Layout]:
    """Every array of a store by its name; mask, sample: shapes of the mask and a clip's frames."""
    maps = ("window", "row", "column")
    window = (attributes.window, *mask)
    found = {"mask": Layout("uint8", mask, maps[1:])}
    for split in SPLITS:
        clips = len(attributes.clips[split])
        axes = ("clip", "frame", "height", "width", "channel")
        shard = shard_length(prod(sample))
        found[f"{split}/video"] = Layout("uint8", (clips, *sample), axes, shard)
        for subject in attributes.subjects:
            present = Layout("bool", (clips,), ("clip",), fill=False)
            found[f"{split}/present/sub-{subject}"] = present
            shape, shard = (clips, *window), shard_length(2 * prod(window))
            found[f"{split}/fmri/sub-{subject}"] = Layout("float16", shape, ("clip", *maps), shard)
    for subject, names in attributes.anatomy.items():
        shape = (len(names), *mask)
        found[f"anatomy/sub-{subject}"] = Layout("float32", shape, ("map", *maps[1:]))
    for subject in attributes.subjects:
        found[f"train/average/sub-{subject}"] = Layout("float32", window, maps)
        volumes = sum(run["volumes"] for run in attributes.runs_of(subject))
        for kind in (*ALWAYS, *attributes.kinds):
            shape, axes = ((volumes,), ("volume",)) if kind in COURSES else (mask, maps[1:])
            if kind == "carpet":
                states = 1 + ("course_cleaned" in attributes.kinds)
                shape = (states, CARPET, drifting_run(attributes, subject)["volumes"])
                axes = ("state", "pixel", "volume")
            found[f"quality/{kind}/sub-{subject}"] = Layout("float32", shape, axes)
    return found


@dataclass(frozen=True)
class Store:
    """A finished store, open for reading; opening it finds every array that is not whole."""

    path: Path
    attributes: Attributes
    _arrays: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, path: str | Path) -> "Store":
        path = Path(path)
        attributes, sizes = read_attributes(path)
        shapes = {}
        for name in ("mask", "train/video"):
            with reading(path, name):
                shapes[name] = declared_shape(path / name)
        every = layouts(attributes, mask=shapes["mask"], sample=shapes["train/video"][1:])
        store = cls(path, attributes)
        for name, layout in every.items():
            with reading(path, name):
                known = store._known(name, layout) if sizes is None else sizes[name]
                store._arrays[name] = layout.open(path / name, sizes=known)
        return store

    @classmethod
    @contextmanager
    def create(
        cls,
        path: str | Path,
        attributes: Attributes,
        *,
        mask: Bool[ndarray, "h w"],
        frames: int,
        resolution: tuple[int, int],
    ) -> Iterator["Writer"]:
        """The store appears when the block ends well."""
        path = Path(path)
        with whole_folder(path) as folder:
            writer = Writer(path, folder, attributes, mask=mask, sample=(frames, *resolution, 3))
            yield writer
            writer.finish()

    def num_clips(self, split: Split) -> int:
        return len(self.attributes.clips[split])

    @property
    def sample(self) -> tuple[int, int, int, int]:
        """Frames, height, width and channels of a clip."""
        return tuple(self._arrays["train/video"].shape[1:])

    @property
    def mask(self) -> Bool[ndarray, "h w"]:
        return self._read(["mask"])[0].astype(bool)

    def video(self, split: Split, clips: Sequence[int] | ndarray) -> UInt8[ndarray, "b f h w 3"]:
        """Frames of several samples, read at the same time."""
        return self._take([f"{split}/video"], clips)[0]

    def has_latents(self, split: Split) -> bool:
        return self.latents_of(split) is not None

    def latents_of(self, split: Split) -> str | None:
        """What says of which VAE the latents are; None without latents."""
        return stored_vae(self.path, split)

    def latents(
        self, split: Split, clips: Sequence[int] | ndarray
    ) -> Float[ndarray, "b f h w 2c"] | None:
        """The VAE's mean and log-variance of several samples, float32; None where not kept."""
        name = f"{split}/latents"
        if not self.has_latents(split):
            return None
        if name not in self._arrays:
            shape = self._arrays[f"{split}/video"].shape
            self._arrays[name] = open_latents(self.path, split, video=shape)
        return self._take([name], clips)[0]

    def fmri(
        self, split: Split, clips: Sequence[int] | ndarray, *, subjects: Sequence[str]
    ) -> Float[ndarray, "b s w h w2"]:
        """float16 windows of several samples and subjects, read at the same time."""
        names = [self._of(f"{split}/fmri", subject) for subject in subjects]
        return np.stack(self._take(names, clips), axis=1)

    def volumes(
        self,
        split: Split,
        *,
        subject: str,
        clips: Int[ndarray, " b"],
        positions: Int[ndarray, " b"],
    ) -> Float[ndarray, "b h w"]:
        """float16 single volumes: `positions` within the windows of `clips`."""
        return self._read([self._of(f"{split}/fmri", subject)], ts.d[0, 1][clips, positions])[0]

    def present(self, split: Split, *, subjects: Sequence[str]) -> Bool[ndarray, "clips s"]:
        """Which subjects have which samples."""
        names = [self._of(f"{split}/present", subject) for subject in subjects]
        return np.stack(self._read(names), axis=1)

    def average(self, *, subjects: Sequence[str]) -> Float[ndarray, "w h w2"]:
        """Mean window over all train samples of the subjects, every sample with the same weight."""
        weights = self.present("train", subjects=subjects).sum(axis=0)
        names = [self._of("train/average", subject) for subject in subjects]
        if not weights.any():
            raise DataError(f"{self.path}: has no train sample of {', '.join(subjects)}")
        average = np.average(np.stack(self._read(names)), axis=0, weights=weights)
        if not np.isfinite(average).all():
            raise DataError(
                f"{self.path}: the fMRI of {', '.join(subjects)} is not finite throughout; remove "
                "the store and prepare it again"
            )
        return average.astype(np.float32)

    def quality(self, kind: Quality, subject: str) -> Float[ndarray, "..."]:
        """An image (row, column), for courses one value a volume; see `Quality`."""
        return self._read([self._of(f"quality/{kind}", subject)])[0]

    def anatomy(self, subject: str) -> dict[str, Float[ndarray, "h w"]]:
        """Maps of the subject's anatomy by their names, in the units of their files; zero off the
        cortex. Empty where there are none."""
        name = self._of("anatomy", subject)
        names = self.attributes.anatomy.get(subject, [])
        return dict(zip(names, self._read([name])[0], strict=True)) if names else {}

    def num_bytes(self, split: Split, *, subjects: Sequence[str]) -> int:
        """Size in memory of a split as stored."""
        names = [f"{split}/video", *(self._of(f"{split}/fmri", subject) for subject in subjects)]
        arrays = [self._arrays[name] for name in names]
        return sum(array.size * array.dtype.numpy_dtype.itemsize for array in arrays)

    def _of(self, group: str, subject: str) -> str:
        if subject not in self.attributes.subjects:
            known = ", ".join(self.attributes.subjects)
            raise DataError(f"{self.path}: has no subject {subject}; it holds {known}")
        return f"{group}/sub-{subject}"

    def _take(self, names: Sequence[str], clips: Sequence[int] | ndarray) -> list[ndarray]:
        """Some samples of each."""
        index: Int[ndarray, " b"] = np.asarray(clips, np.int64)
        count = self._arrays[names[0]].shape[0]
        if index.min(initial=0) < 0 or index.max(initial=-1) >= count:
            raise IndexError(f"{names[0]}: has {count} samples")  # ours to mend, and no damage
        return self._read(names, ts.d[0][index])

    def _read(self, names: Sequence[str], part: Any = ...) -> list[ndarray]:
        """Arrays or the same part of each, all read at the same time."""
        waiting = []
        for name in names:
            with reading(self.path, name):
                waiting.append(self._arrays[name][part].read())
        found = []
        for name, future in zip(names, waiting, strict=True):
            with reading(self.path, name):
                found.append(future.result())
        return found

    def _known(self, name: str, layout: Layout) -> Iterator[int | None]:
        """Which files there must be in a store without a seal, for `Layout.open`."""
        split, _, rest = name.partition("/")
        kind, _, subject = rest.partition("/")
        samples = np.ones(layout.shape[0], bool)
        if split == "quality":  # may be zero throughout, which is not written
            samples[:] = False
        elif kind == "present":
            samples[:] = (self.path / split / "fmri" / subject / "c").exists()
        elif kind == "fmri":
            [samples] = self._read([f"{split}/present/{subject}"])
        for start in range(0, len(samples), layout.chunk[0]):
            yield None if samples[start : start + layout.chunk[0]].any() else 0


class Writer:
    """Fills the arrays of a store, whose name is `path`, in a folder aside."""

    def __init__(
        self,
        path: Path,
        folder: Path,
        attributes: Attributes,
        *,
        mask: Bool[ndarray, "h w"],
        sample: tuple[int, int, int, int],
    ):
        self.path, self.sample = path, sample
        self._folder, self.attributes = folder, attributes
        self._layouts = layouts(attributes, mask=mask.shape, sample=sample)
        self._arrays: dict[str, Any] = {}
        for name, layout in self._layouts.items():
            for group in reversed(Path(name).parents):
                write_group(folder / group, {})
            with writing(path):
                self._arrays[name] = layout.create(folder / name)
        self.write("mask", mask)

    def write(self, name: str, values: ndarray, *, start: int | None = None) -> None:
        """Fills an array, or its samples from `start` on; whole shards are written fastest."""
        array = self._arrays[name]
        target = array if start is None else array[start : start + len(values)]
        values = values.astype(array.dtype.numpy_dtype, copy=False)
        with writing(self.path):
            # Waited for, so that no copy is needed for a later change of `values`.
            target.write(values, can_reference_source_data_indefinitely=True).result()

    def finish(self) -> None:
        sizes = {name: each.sizes(self._folder / name) for name, each in self._layouts.items()}
        self.attributes.write(self._folder, sizes=sizes)
