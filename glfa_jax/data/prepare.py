"""Scanner files to the prepared store: python -m glfa_jax.data.prepare --config CONFIG."""

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.sparse import csr_array
from tqdm import tqdm

from glfa_jax import config
from glfa_jax.data import DataError
from glfa_jax.data.flatmap import FlatMap, build
from glfa_jax.data.layouts import SPLITS, Run, Split, Study, bids
from glfa_jax.data.store import SHARD, Attributes, Store, Writer
from glfa_jax.data.surfaces import Surfaces, fsaverage5
from glfa_jax.data.video import read_video
from glfa_jax.errors import InputError

SPACES = {"fsaverage5": fsaverage5}

Key = tuple[str, int]  # clip and repeat; repeat -1 stands for the average over repeats


@dataclass(frozen=True)
class _Signal:
    """What was seen of one subject and split, for the summary."""

    subject: str
    split: Split
    runs: int
    volumes: int
    samples: int
    missing: int
    cut_short: int
    silent: int
    peak: float

    def __str__(self) -> str:
        return (
            f"  sub-{self.subject} {self.split}: {self.runs} runs, {self.volumes} volumes, "
            f"{self.samples} samples, {self.missing} missing, "
            f"{self.cut_short} trials cut short by a run's end; "
            f"{self.silent} constant pixels, largest |z| {self.peak:.1f}"
        )


def prepare(data: config.Data, *, progress: bool = True) -> Store:
    """Simulates (where asked for), reads, z-scores, cuts and stores; reuses a store that fits.

    Raises DataError in one sentence; nothing half-written is left under the store's name.
    """
    settings = _settings(data)
    if data.store.exists():
        return _reuse(data.store, settings, progress=progress)
    if data.space not in SPACES:
        raise DataError(f"data.space: {data.space} is unknown, known are {', '.join(SPACES)}")
    if data.simulation is not None:
        from glfa_jax.simulate.study import write_study

        write_study(data.simulation, data.root, progress=progress)  # leaves an equal one alone
    study = bids.read_study(data.root, subjects=data.subjects, task=data.task, space=data.space)
    surfaces = SPACES[data.space]()
    flat = build(surfaces, raster=data.raster)
    keys = {split: _keys(study, split) for split in SPLITS}
    shared = {clip for clip, _ in keys["train"]} & {clip for clip, _ in keys["test"]}
    if shared:
        raise DataError(f"{data.root}: clip {min(shared)} is shown in train and in test runs")
    provenance = {
        "root": str(data.root),
        "settings": settings,
        "files": {str(file.relative_to(data.root)): _file(file) for file in study.files},
        "glfa_jax": version("glfa_jax"),
    }
    attributes = Attributes(
        subjects=data.subjects,
        repetition_time=_repetition_time(study),
        lag_seconds=data.lag_seconds,
        window=data.window,
        clips={split: [clip for clip, _ in keys[split]] for split in SPLITS},
        captions={split: [study.captions[clip] for clip, _ in keys[split]] for split in SPLITS},
        fingerprint=_digest(settings),
        identity=_digest({"settings": settings, "files": provenance["files"]}),
        provenance=provenance,
    )
    steps = len(study.runs) + sum(map(len, keys.values()))
    with (
        tqdm(total=steps, disable=not progress, unit="file", desc="prepare") as bar,
        Store.create(
            data.store, attributes, mask=flat.mask, frames=data.frames, resolution=data.resolution
        ) as writer,
    ):
        signals = []
        for split in SPLITS:
            for subject in data.subjects:
                cut = _Cut(data, surfaces, flat, attributes.repetition_time)
                signals.append(cut.write(writer, study, keys[split], split, subject, bar))
            _write_videos(writer, study, keys[split], split, data, bar)
    if progress:
        print(_summary(data, attributes, flat, signals), flush=True)
    return Store.open(data.store)


def _keys(study: Study, split: Split) -> list[Key]:
    """The samples of a split in the order in which the first subject to see them did.

    Train: one per showing of a clip. Test: one per clip, repeats are averaged.
    """
    keys: dict[Key, None] = {}
    for run in study.runs:
        if run.split == split:
            keys |= dict.fromkeys(_key(split, trial.clip, trial.repeat) for trial in run.trials)
    if not keys:
        raise DataError(f"no run of the study has trial_type {split}; both splits are needed")
    return list(keys)


def _key(split: Split, clip: str, repeat: int) -> Key:
    return (clip, repeat if split == "train" else -1)


def _repetition_time(study: Study) -> float:
    first = study.runs[0]
    for run in study.runs:
        if run.repetition_time != first.repetition_time:
            raise DataError(
                f"{run.scans[0]}: repetition time {run.repetition_time} s, but "
                f"{first.repetition_time} s in {first.scans[0]}"
            )
    return first.repetition_time


class _Cut:
    """Cuts the runs of one subject and split into windows."""

    def __init__(self, data: config.Data, surfaces: Surfaces, flat: FlatMap, tr: float):
        self.data, self.surfaces, self.flat, self.tr = data, surfaces, flat, tr
        self.pixels = flat.mask.ravel()
        self.weights: csr_array = flat.weights[np.flatnonzero(self.pixels)]

    def write(
        self,
        writer: Writer,
        study: Study,
        keys: Sequence[Key],
        split: Split,
        subject: str,
        bar: tqdm,
    ) -> _Signal:
        runs = [run for run in study.runs if run.subject == subject and run.split == split]
        series, windows, cut_short = [], {}, 0
        for index, run in enumerate(runs):
            series.append(self.signal(run))
            for trial in run.trials:
                first = self.first_volume(run, trial.onset, len(series[-1]))
                key = _key(split, trial.clip, trial.repeat)
                if split == "train" and key in windows:
                    raise DataError(
                        f"{run.events}: clip {trial.clip}, repeat {trial.repeat} was shown before "
                        f"to sub-{subject}; every showing needs its own repeat number"
                    )
                windows.setdefault(key, [])
                if first + self.data.window <= len(series[-1]):
                    windows[key].append((index, first))
                else:
                    cut_short += 1
            bar.update()
        present = np.array([bool(windows.get(key)) for key in keys])
        if split == "train" and not present.any():
            raise DataError(f"sub-{subject}: has no complete {split} sample")
        total = np.zeros((self.data.window, int(self.pixels.sum())))
        for start in range(0, len(keys), SHARD):
            block = keys[start : start + SHARD]
            cut = np.zeros((len(block), *total.shape), np.float32)
            for i, key in enumerate(block):
                shown = windows.get(key) or ()
                for index, first in shown:
                    cut[i] += series[index][first : first + self.data.window] / len(shown)
            total += cut.sum(axis=0, dtype=np.float64)
            writer.write(f"{split}/fmri/sub-{subject}", self.draw(cut), start=start)
        writer.write(f"{split}/present/sub-{subject}", present)
        if split == "train":
            writer.write(f"train/average/sub-{subject}", self.draw(total / present.sum()))
        return _Signal(
            subject=subject,
            split=split,
            runs=len(runs),
            volumes=sum(map(len, series)),
            samples=int(present.sum()),
            missing=int((~present).sum()),
            cut_short=cut_short,
            silent=int(sum((~run.any(axis=0)).sum() for run in series)),
            peak=float(max((np.abs(run).max() for run in series), default=0.0)),
        )

    def draw(self, values: Float[ndarray, "*b p"]) -> Float[ndarray, "*b h w"]:
        """Cortex pixels to pictures, zero elsewhere."""
        pictures = np.zeros((*values.shape[:-1], self.pixels.size), np.float32)
        pictures[..., self.pixels] = values
        return pictures.reshape(*values.shape[:-1], *self.flat.mask.shape)

    def first_volume(self, run: Run, onset: float, volumes: int) -> int:
        """The volume nearest to onset + lag; the earlier one of two equally near."""
        if onset >= volumes * self.tr:
            raise DataError(
                f"{run.events}: a trial starts at {onset:g} s, beyond the end of the run at "
                f"{volumes * self.tr:g} s ({volumes} volumes)"
            )
        seconds = onset + self.data.lag_seconds - run.start_time
        return max(math.ceil(seconds / self.tr - 0.5 - 1e-6), 0)

    def signal(self, run: Run) -> Float[ndarray, "time p"]:
        """z-scores of every cortex pixel over the run (ddof 1); a constant pixel becomes zero."""
        series = run.load()
        volumes, vertices = series.shape
        if vertices != self.surfaces.num_vertices:
            raise DataError(
                f"{run.scans[0]}: {vertices} vertices over both hemispheres, {self.data.space} "
                f"has {self.surfaces.num_vertices}"
            )
        if volumes < 2:
            raise DataError(f"{run.scans[0]}: {volumes} volumes, at least 2 are needed")
        self._check_finite(run, series)
        pixels = np.ascontiguousarray((self.weights @ self._region(series).T).T, np.float64)
        constant = np.ptp(pixels, axis=0) == 0
        pixels -= pixels.mean(axis=0)
        spread = pixels.std(axis=0, ddof=1)
        pixels /= np.where(constant, 1, spread)
        pixels[:, constant] = 0
        return pixels.astype(np.float32)

    def _region(self, series: Float[ndarray, "time v"]) -> Float[ndarray, "time v"]:
        # Vertices outside the region have no weight, but NaN times zero would still be NaN.
        return np.where(self.surfaces.region, series, 0)

    def _check_finite(self, run: Run, series: Float[ndarray, "time v"]) -> None:
        left = self.surfaces.left.num_vertices
        wrong = ~np.isfinite(series) & self.surfaces.region
        for side, part in enumerate((wrong[:, :left], wrong[:, left:])):
            if part.any():
                volume = int(part.any(axis=1).argmax())
                raise DataError(
                    f"{run.scans[side % len(run.scans)]}: not finite at {part[volume].sum()} "
                    f"visual vertices of volume {volume} (counted from 0)"
                )


def _write_videos(
    writer: Writer, study: Study, keys: Sequence[Key], split: Split, data: config.Data, bar: tqdm
) -> None:
    read = partial(read_video, frames=data.frames, resolution=data.resolution)
    for start in range(0, len(keys), SHARD):
        videos = []
        for clip, _ in keys[start : start + SHARD]:
            videos.append(read(study.videos[clip]))
            bar.update()
        writer.write(f"{split}/video", np.stack(videos), start=start)


def _settings(data: config.Data) -> dict[str, Any]:
    """All that decides what is in the store; where it lies does not."""
    settings = data.model_dump(mode="json", exclude={"store"})
    return {**settings, "root": str(data.root.resolve())}


def _digest(tree: Any) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def _file(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {
            "size": path.stat().st_size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }


def _reuse(path: Path, settings: dict[str, Any], *, progress: bool) -> Store:
    store = Store.open(path)
    if store.attributes.fingerprint != _digest(settings):
        theirs = store.attributes.provenance["settings"]
        differing = ", ".join(
            key for key in settings | theirs if settings.get(key) != theirs.get(key)
        )
        raise DataError(
            f"{path}: was prepared with other settings ({differing}); remove it or choose another "
            "data.store"
        )
    for name, known in store.attributes.provenance["files"].items():
        file = Path(settings["root"]) / name
        if file.exists() and file.stat().st_size != known["size"]:
            raise DataError(
                f"{path}: {file} has changed since it was prepared; remove it or choose another "
                "data.store"
            )
    if progress:
        print(f"{path}: up to date, reused", flush=True)
    return store


def _summary(
    data: config.Data, attributes: Attributes, flat: FlatMap, signals: Sequence[_Signal]
) -> str:
    def lines() -> Iterator[str]:
        clips = ", ".join(f"{len(attributes.clips[split])} {split}" for split in SPLITS)
        first = round(attributes.lag_seconds / attributes.repetition_time)
        yield f"{data.store}: {len(attributes.subjects)} subjects, samples: {clips}"
        yield (
            f"  TR {attributes.repetition_time:g} s, lag {attributes.lag_seconds:g} s "
            f"({first} volumes), window {attributes.window} volumes, {data.frames} frames of "
            f"{data.resolution[0]} x {data.resolution[1]}"
        )
        yield (
            f"  flat map {data.raster} x {data.raster}, {flat.mask.sum()} cortex pixels of "
            f"{flat.pixel_mm:.2f} mm"
        )
        yield from map(str, signals)

    return "\n".join(lines())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m glfa_jax.data.prepare", description=__doc__)
    parser.add_argument("--config", required=True, type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    options = parser.parse_args(arguments)
    try:
        prepare(config.load(options.config, options.set).data)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
