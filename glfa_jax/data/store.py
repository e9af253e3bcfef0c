"""The prepared data: one Zarr v3 group that zarr, xarray and TensorStore open.

    mask                       (row, column) uint8            cortex on the flat map
    {train,test}/video         (clip, frame, height, width, channel) uint8
    {train,test}/fmri/sub-XX   (clip, window, row, column) float16    z-scored, zero off the mask
    {train,test}/present/sub-XX  (clip) bool                  whether the subject has the sample
    train/latents              (clip, frame, height, width, channel) float32   only where asked for
    train/average/sub-XX       (window, row, column) float32  mean over the subject's train samples
    quality/mean/sub-XX        (row, column) float32          raw signal, mean over volumes and runs
    quality/tsnr/sub-XX        (row, column) float32          mean over spread, mean over runs
    quality/reliability/sub-XX (row, column) float32          correlation of odd and even repeats
    quality/course/sub-XX      (volume) float32               mean of the cortex, per cent change

One sample is one chunk; `SHARD` samples share a file, fewer where they are large. `clip` counts
samples: in the train split every showing of a clip is its own sample, in the test split repeats
are averaged. What `quality` holds is there to be looked at and enters no training.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

import numpy as np
import tensorstore as ts
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray

from glfa_jax.data import DataError
from glfa_jax.data.latents import stored_vae
from glfa_jax.data.layouts import SPLITS, Split
from glfa_jax.data.zarr import array_spec

FORMAT = 2
SHARD = 64
SHARD_BYTES = 2**27  # a shard is held in memory, packed and unpacked, when it is written

# mean: in the scanner's units. tsnr: of one volume, over time. reliability: Pearson correlation,
# over the volumes of all test samples, of the average over odd with that over even repeats; zero
# for a subject without repeats. course: of the volumes that were z-scored, runs one after another
# in the order of `Attributes.runs`, change from each run's mean; zero where that is not positive.
Quality = Literal["mean", "tsnr", "reliability", "course"]


def shard_length(sample_bytes: int) -> int:
    """Samples that share a file: a power of two."""
    length = SHARD
    while length > 1 and length * sample_bytes > SHARD_BYTES:
        length //= 2
    return length


@dataclass(frozen=True)
class Attributes:
    """What the group says about itself.

    repetition_time, lag_seconds: seconds. clips, captions: per split, one per sample.
    clip_seconds: duration of a clip, the median over all showings.
    layout, space: as in the settings.
    repeats: most repeats of a test clip that each subject has seen.
    runs: {subject, name, split, volumes, missing}, in the order they were read; volumes: those
        that were z-scored; missing: trials whose window is not wholly in the run.
    notes: one sentence on each thing that is not as expected, or was left out.
    provenance: root, settings, files (name -> size and sha256), package version.
    fingerprint: of the settings; identity: of settings and file contents.
    """

    subjects: tuple[str, ...]
    repetition_time: float
    lag_seconds: float
    window: int
    clips: dict[str, list[str]]
    captions: dict[str, list[str]]
    clip_seconds: float
    layout: str
    space: str
    repeats: dict[str, int]
    runs: list[dict[str, Any]]
    notes: list[str]
    fingerprint: str
    identity: str
    provenance: dict[str, Any]


@dataclass(frozen=True)
class Store:
    """A finished store, open for reading; arrays are opened once and kept."""

    path: Path
    attributes: Attributes
    _arrays: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, path: str | Path) -> "Store":
        path = Path(path)
        try:
            group = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
            attributes = dict(group["attributes"])
            version = attributes.pop("format")
        except FileNotFoundError:
            raise DataError(f"{path}: no prepared store; run glfa_jax.data.prepare") from None
        except (ValueError, KeyError, TypeError, OSError):
            raise DataError(f"{path}: not a prepared store of glfa_jax") from None
        if version != FORMAT:
            raise DataError(
                f"{path}: store format {version}, this version reads {FORMAT}; remove it and "
                "prepare it again"
            )
        attributes["subjects"] = tuple(attributes["subjects"])
        return cls(path, Attributes(**attributes))

    @classmethod
    def create(
        cls,
        path: str | Path,
        attributes: Attributes,
        *,
        mask: Bool[ndarray, "h w"],
        frames: int,
        resolution: tuple[int, int],
    ) -> "Writer":
        """For `with Store.create(...) as writer`; the store appears when the block ends well."""
        return Writer(Path(path), attributes, mask=mask, frames=frames, resolution=resolution)

    def num_clips(self, split: Split) -> int:
        return len(self.attributes.clips[split])

    @property
    def mask(self) -> Bool[ndarray, "h w"]:
        return self._array("mask").read().result().astype(bool)

    def video(self, split: Split, clips: Sequence[int] | ndarray) -> UInt8[ndarray, "b f h w 3"]:
        """Frames of several samples, read at the same time."""
        return self._take(f"{split}/video", clips).result()

    def has_latents(self, split: Split) -> bool:
        return self.latents_of(split) is not None

    def latents_of(self, split: Split) -> str | None:
        """What says of which VAE the latents are; None without latents."""
        return stored_vae(self.path, split)

    def latents(
        self, split: Split, clips: Sequence[int] | ndarray
    ) -> Float[ndarray, "b f h w 2c"] | None:
        """The VAE's mean and log-variance of several samples, float32; None where not kept."""
        return self._take(f"{split}/latents", clips).result() if self.has_latents(split) else None

    def fmri(
        self, split: Split, clips: Sequence[int] | ndarray, *, subjects: Sequence[str]
    ) -> Float[ndarray, "b s w h w2"]:
        """float16 windows of several samples and subjects, read at the same time."""
        futures = [self._take(self._of(f"{split}/fmri", subject), clips) for subject in subjects]
        return np.stack([future.result() for future in futures], axis=1)

    def volumes(
        self,
        split: Split,
        *,
        subject: str,
        clips: Int[ndarray, " b"],
        positions: Int[ndarray, " b"],
    ) -> Float[ndarray, "b h w"]:
        """float16 single volumes: `positions` within the windows of `clips`."""
        array = self._array(self._of(f"{split}/fmri", subject))
        return array[ts.d[0, 1][clips, positions]].read().result()

    def present(self, split: Split, *, subjects: Sequence[str]) -> Bool[ndarray, "clips s"]:
        """Which subjects have which samples."""
        names = [self._of(f"{split}/present", subject) for subject in subjects]
        return np.stack([self._array(name).read().result() for name in names], axis=1)

    def average(self, *, subjects: Sequence[str]) -> Float[ndarray, "w h w2"]:
        """Mean window over all train samples of the subjects, every sample with the same weight."""
        weights = self.present("train", subjects=subjects).sum(axis=0)
        names = [self._of("train/average", subject) for subject in subjects]
        averages = np.stack([self._array(name).read().result() for name in names])
        return np.average(averages, axis=0, weights=weights).astype(np.float32)

    def quality(self, kind: Quality, subject: str) -> Float[ndarray, "..."]:
        """A picture (row, column) or, for `course`, one value a volume; see `Quality`."""
        return self._array(self._of(f"quality/{kind}", subject)).read().result()

    def num_bytes(self, split: Split, *, subjects: Sequence[str]) -> int:
        """Size in memory of a split as stored."""
        names = [f"{split}/video", *(self._of(f"{split}/fmri", subject) for subject in subjects)]
        arrays = [self._array(name) for name in names]
        return sum(array.size * array.dtype.numpy_dtype.itemsize for array in arrays)

    def _of(self, group: str, subject: str) -> str:
        if subject not in self.attributes.subjects:
            known = ", ".join(self.attributes.subjects)
            raise DataError(f"{self.path}: has no subject {subject}; it holds {known}")
        return f"{group}/sub-{subject}"

    def _take(self, name: str, clips: Sequence[int] | ndarray) -> Any:
        index: Int[ndarray, " b"] = np.asarray(clips, np.int64)
        return self._array(name)[ts.d[0][index]].read()

    def _array(self, name: str) -> Any:
        if name not in self._arrays:
            spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{self.path}/{name}"}}
            try:
                self._arrays[name] = ts.open(spec, open=True, read=True).result()
            except ValueError as error:
                reason = " ".join(str(error).split())
                raise DataError(f"{self.path}: array {name} cannot be read ({reason})") from None
        return self._arrays[name]


def _sweep(path: Path) -> None:
    """Removes what killed writers of this store left behind; those still at work are spared."""
    for left in path.parent.glob(f".{path.name}.partial-*"):
        process = int(left.name.rpartition("-")[2])
        if process == os.getpid() or not _alive(process):
            shutil.rmtree(left, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


class Writer:
    """Writes a store aside; leaving the block without an error gives it its name."""

    def __init__(
        self,
        path: Path,
        attributes: Attributes,
        *,
        mask: Bool[ndarray, "h w"],
        frames: int,
        resolution: tuple[int, int],
    ):
        self.path, self.attributes, self.mask = path, attributes, mask
        self.sample = (frames, *resolution, 3)
        self._aside = path.with_name(f".{path.name}.partial-{os.getpid()}")
        self._arrays: dict[str, Any] = {}

    def __enter__(self) -> "Writer":
        _sweep(self.path)
        try:
            self._aside.mkdir(parents=True)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written ({error.strerror})") from None
        try:
            self._lay_out()
        except BaseException:
            shutil.rmtree(self._aside)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if kind is None:
            try:
                os.rename(self._aside, self.path)
            except OSError as error:
                shutil.rmtree(self._aside)
                raise DataError(f"{self.path}: cannot be written ({error.strerror})") from None
        else:
            shutil.rmtree(self._aside)

    def write(self, name: str, values: ndarray, *, start: int | None = None) -> None:
        """Fills an array, or its samples from `start` on; whole shards are written fastest."""
        array = self._arrays[name]
        target = array if start is None else array[start : start + len(values)]
        values = values.astype(array.dtype.numpy_dtype, copy=False)
        # Waited for, so that no copy is needed for a later change of `values`.
        target.write(values, can_reference_source_data_indefinitely=True).result()

    def _lay_out(self) -> None:
        attributes = self.attributes
        self._group("", {"format": FORMAT, **vars(attributes)})
        self._create("mask", "uint8", self.mask.shape, ("row", "column"))
        self.write("mask", self.mask)
        window = (attributes.window, *self.mask.shape)
        maps = ("window", "row", "column")
        for split in SPLITS:
            self._group(split)
            clips = len(attributes.clips[split])
            axes = ("clip", "frame", "height", "width", "channel")
            self._create(f"{split}/video", "uint8", (clips, *self.sample), axes)
            kinds = ("fmri", "present", *(("average",) if split == "train" else ()))
            for kind in kinds:
                self._group(f"{split}/{kind}")
            for subject in attributes.subjects:
                name = f"sub-{subject}"
                self._create(f"{split}/fmri/{name}", "float16", (clips, *window), ("clip", *maps))
                self._create(f"{split}/present/{name}", "bool", (clips,), ("clip",))
                if split == "train":
                    self._create(f"{split}/average/{name}", "float32", window, maps)
        self._group("quality")
        for kind in get_args(Quality):
            self._group(f"quality/{kind}")
            for subject in attributes.subjects:
                shape, axes = self.mask.shape, maps[1:]
                if kind == "course":
                    runs = [run for run in attributes.runs if run["subject"] == subject]
                    shape, axes = (sum(run["volumes"] for run in runs),), ("volume",)
                self._create(f"quality/{kind}/sub-{subject}", "float32", shape, axes)

    def _group(self, name: str, attributes: Mapping[str, Any] | None = None) -> None:
        folder = self._aside / name
        folder.mkdir(exist_ok=True)
        group = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes or {})}
        (folder / "zarr.json").write_text(json.dumps(group, indent=1), encoding="utf-8")

    def _create(self, name: str, dtype: str, shape: Sequence[int], axes: Sequence[str]) -> None:
        sampled = axes[0] == "clip" and len(axes) > 1
        size = int(np.prod(shape[1:])) * np.dtype(dtype).itemsize
        spec = array_spec(
            self._aside / name,
            dtype=dtype,
            shape=shape,
            axes=axes,
            fill=False if dtype == "bool" else 0,
            shard=shard_length(size) if sampled else None,
        )
        self._arrays[name] = ts.open(spec, create=True).result()
