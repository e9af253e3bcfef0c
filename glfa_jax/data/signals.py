"""One run's time series to z-scores of the cortex pixels, streamed into a piece of the scratch."""

import hashlib
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import csr_array

from glfa_jax.data import DataError, reading
from glfa_jax.data.attributes import StoredFile
from glfa_jax.data.flatmap import FlatMap
from glfa_jax.data.hemispheres import Witness
from glfa_jax.data.layouts import Run
from glfa_jax.data.pieces import (
    Piece,
    digest,
    hashed,
    read_rows,
    write_array,
    write_json,
    write_rows,
)
from glfa_jax.files import whole_folder
from glfa_jax.records import Text

COLUMNS = 2048  # pixels taken to float64 at a time


@dataclass(frozen=True, eq=False)
class Pixels:
    """From the values of a series to the cortex pixels of the flat map.

    columns: the values that any pixel needs; only these are looked at.
    weights: (pixels, columns).
    sides: number of values of each half of the series.
    walls: values of each half that lie in the medial wall, where that is known.
    """

    columns: Int[ndarray, " used"]
    weights: csr_array
    sides: tuple[int, ...]
    walls: tuple[Bool[ndarray, " v"], ...] = ()

    @classmethod
    def of(cls, flat: FlatMap) -> "Pixels":
        rows: csr_array = flat.weights[np.flatnonzero(flat.mask)]
        columns = np.unique(rows.indices)
        return cls(columns, csr_array(rows[:, columns]), flat.sides, flat.walls)

    @cached_property
    def digest(self) -> str:
        weights = self.weights
        parts = (self.columns, weights.indptr, weights.indices, weights.data, *self.walls)
        state = hashlib.sha256(repr(self.sides).encode())
        for part in parts:
            state.update(np.ascontiguousarray(part).data)
        return state.hexdigest()

    def take(
        self, run: Run, block: Float[ndarray, "time values"], *, start: int
    ) -> Float[ndarray, "time p"]:
        """The pixels of a few volumes, the first of them volume `start` of the run."""
        given = run.sides or (block.shape[1],)
        if sum(given) != sum(self.sides) or run.sides not in ((), self.sides):
            raise DataError(
                f"{run.scans[0]}: {' + '.join(map(str, given))} values a volume, the flat map "
                f"takes {' + '.join(map(str, self.sides))}"
            )
        used = np.ascontiguousarray(block[:, self.columns], np.float32)
        finite = np.isfinite(used)
        if not finite.all():
            volume = int((~finite.all(axis=1)).argmax())
            wrong = self.columns[~finite[volume]]
            side = int(np.searchsorted(np.cumsum(self.sides), wrong[0], side="right"))
            count = int((wrong < sum(self.sides[: side + 1])).sum())
            raise DataError(
                f"{run.scans[side % len(run.scans)]}: not finite at {count} places of the region "
                f"in volume {start + volume} (counted from 0)"
            )
        return np.ascontiguousarray((self.weights @ used.T).T)


@dataclass(frozen=True)
class Signal(Piece):
    """A run's finished piece.

    volumes: all that windows may reach; the last `tail` of them count for nothing else.
    notes: what seems to be wrong and does no harm, a sentence each.
    """

    volumes: int
    tail: int
    silent: int
    peak: float
    files: dict[Text, StoredFile]
    notes: tuple[Text, ...]

    @property
    def kept(self) -> int:
        return self.volumes - self.tail

    def window(self, first: int, count: int) -> Float[ndarray, "time p"]:
        return read_rows(self.piece / "z.npy", first, count)

    @property
    def mean(self) -> Float[ndarray, " p"]:
        return read_rows(self.piece / "mean.npy")

    @property
    def tsnr(self) -> Float[ndarray, " p"]:
        return read_rows(self.piece / "tsnr.npy")

    @property
    def course(self) -> Float[ndarray, " kept"]:
        return read_rows(self.piece / "course.npy")


@dataclass(frozen=True)
class ReadRun:
    """The task of making one run's piece."""

    run: Run
    pixels: Pixels

    @property
    def name(self) -> str:
        return f"sub-{self.run.subject}-run-{self.run.name}"

    @property
    def sources(self) -> tuple[Path, ...]:
        return self.run.scans

    @property
    def key(self) -> str:
        """Changes with everything that the piece is made of; the trials are not part of it."""
        recipe = pickle.dumps((self.run.blocks, self.run.tail))
        return digest(self.sources, self.pixels.digest, hashlib.sha256(recipe).hexdigest())

    def write(self, piece: Path) -> None:
        """z-scores (ddof 1) over the volumes before the tail; a constant pixel becomes zero."""
        blocks, volumes, witness = [], 0, Witness(self.pixels.walls)
        with reading(self.run.scans[0], "scan"):
            for block in self.run.blocks():
                blocks.append(self.pixels.take(self.run, block, start=volumes))
                witness.see(block)
                volumes += len(block)
        kept = volumes - self.run.tail
        if kept < 2:
            raise DataError(f"{self.run.scans[0]}: {kept} volumes, at least 2 are needed")
        pixels = blocks[0].shape[1]
        mean, spread, course = np.zeros(pixels), np.zeros(pixels), np.zeros(volumes)
        peak, silent = 0.0, 0
        for start in range(0, pixels, COLUMNS):
            part = slice(start, start + COLUMNS)
            series = np.concatenate([block[:, part] for block in blocks]).astype(np.float64)
            course += series.sum(axis=1) / pixels
            constant = np.ptp(series[:kept], axis=0) == 0
            mean[part] = series[:kept].mean(axis=0)
            series -= mean[part]
            spread[part] = np.where(constant, 0, series[:kept].std(axis=0, ddof=1))
            series /= np.where(constant, 1, spread[part])
            series[:, constant] = 0
            peak = max(peak, float(np.abs(series[:kept]).max()))
            silent += int(constant.sum())
            for block, scores in zip(blocks, _split(series, blocks), strict=True):
                block[:, part] = scores  # in place: the run is held once
        level = course[:kept].mean()
        course = 100 * (course[:kept] / level - 1) if level > 0 else np.zeros(kept)
        tsnr = np.divide(mean, spread, out=np.zeros(pixels), where=spread > 0)
        about = {
            "volumes": volumes,
            "tail": self.run.tail,
            "silent": silent,
            "peak": peak,
            "files": {str(file): hashed(file) for file in self.sources},
            "notes": witness.notes(self.run.scans),
        }
        with whole_folder(piece) as folder:
            write_rows(folder / "z.npy", iter(blocks), shape=(volumes, pixels), dtype=np.float32)
            for name, values in (("mean", mean), ("tsnr", tsnr), ("course", course)):
                write_array(folder / f"{name}.npy", values.astype(np.float32))
            write_json(folder / "about.json", about)


def _split(series: ndarray, blocks: list[ndarray]) -> Iterator[ndarray]:
    start = 0
    for block in blocks:
        yield series[start : start + len(block)]
        start += len(block)
