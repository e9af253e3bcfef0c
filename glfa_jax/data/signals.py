"""One run's time series to z-scores of the cortex pixels, streamed into a piece of the scratch."""

import hashlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import csr_array

from glfa_jax import config
from glfa_jax.data import DataError, reading
from glfa_jax.data.attributes import RunQuality, StoredFile
from glfa_jax.data.cleaning.confounds import displacement_of, regressors
from glfa_jax.data.cleaning.temporal import Cleaner
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
from glfa_jax.data.scores import Scores
from glfa_jax.files import whole_folder
from glfa_jax.records import Text

EVERY = ("mean", "tsnr", "course")  # arrays that every piece has


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
    def of(
        cls,
        flat: FlatMap,
        *,
        smoother: Callable[[Int[ndarray, " used"]], csr_array] | None = None,
    ) -> "Pixels":
        """smoother: gives (used, values), the values that each of those used is to be a mean of."""
        rows: csr_array = flat.weights[np.flatnonzero(flat.mask)]
        if smoother is not None:
            drawn = np.unique(rows.indices)
            rows = csr_array(rows[:, drawn] @ smoother(drawn), dtype=np.float32)
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
    censored: volumes that were interpolated, because the head moved.
    arrays: names of what there is besides mean, tsnr and course.
    """

    volumes: int
    tail: int
    silent: int
    peak: float
    files: dict[Text, StoredFile]
    notes: tuple[Text, ...]
    censored: tuple[int, ...] = ()
    quality: RunQuality = field(default_factory=RunQuality)
    arrays: tuple[Text, ...] = ()

    @property
    def kept(self) -> int:
        return self.volumes - self.tail

    def window(self, first: int, count: int) -> Float[ndarray, "time p"]:
        return read_rows(self.piece / "z.npy", first, count)

    def censored_share(self, first: int, count: int) -> float:
        """Of the volumes of a window."""
        return sum(first <= volume < first + count for volume in self.censored) / count

    @property
    def mean(self) -> Float[ndarray, " p"]:
        return read_rows(self.piece / "mean.npy")

    @property
    def tsnr(self) -> Float[ndarray, " p"]:
        return read_rows(self.piece / "tsnr.npy")

    @property
    def course(self) -> Float[ndarray, " kept"]:
        return read_rows(self.piece / "course.npy")

    def array(self, name: str) -> Float[ndarray, "..."]:
        """One of `arrays`."""
        return read_rows(self.piece / f"{name}.npy")


@dataclass(frozen=True)
class ReadRun:
    """The task of making one run's piece."""

    run: Run
    pixels: Pixels
    cleaning: config.Cleaning = field(default_factory=config.Cleaning)

    @property
    def name(self) -> str:
        return f"sub-{self.run.subject}-run-{self.run.name}"

    @property
    def sources(self) -> tuple[Path, ...]:
        return self.run.scans

    @property
    def key(self) -> str:
        """Changes with everything that the piece is made of; the trials are not part of it."""
        run = self.run
        recipe = pickle.dumps((run.blocks, run.tail, run.dropped, run.repetition_time))
        table = run.confounds
        tables = () if table is None else (table, table.with_suffix(".json"))
        return digest(
            (*self.sources, *tables),
            self.pixels.digest,
            hashlib.sha256(recipe).hexdigest(),
            self.cleaning.comparable(),
        )

    def write(self, piece: Path) -> None:
        """z-scores (ddof 1) over the volumes before the tail; a constant pixel becomes zero."""
        blocks, volumes, witness = [], 0, Witness(self.pixels.walls)
        with reading(self.run.scans[0], "scan"):
            for block in self.run.blocks():
                blocks.append(self.pixels.take(self.run, block, start=volumes))
                witness.see(block)
                volumes += len(block)
        if volumes - self.run.tail < 2:
            raise DataError(
                f"{self.run.scans[0]}: {volumes - self.run.tail} volumes, at least 2 are needed"
            )
        cleaner = self._cleaner(volumes)
        moved, notes = self._displacement(volumes)
        seconds = self.run.repetition_time
        scored = Scores(blocks, tail=self.run.tail, seconds=seconds, cleaner=cleaner)
        if moved is not None:
            scored.add_motion(moved)
        arrays = scored.arrays
        about = {
            "volumes": volumes,
            "tail": self.run.tail,
            "silent": scored.silent,
            "peak": scored.peak,
            "files": {str(file): hashed(file) for file in self.sources},
            "notes": [*witness.notes(self.run.scans), *notes, *(cleaner.notes if cleaner else ())],
            "censored": [] if cleaner is None else np.flatnonzero(~cleaner.kept).tolist(),
            "quality": scored.quality,
            "arrays": [name for name in arrays if name not in EVERY],
        }
        shape = (volumes, blocks[0].shape[1])
        with whole_folder(piece) as folder:
            write_rows(folder / "z.npy", iter(blocks), shape=shape, dtype=np.float32)
            for name, values in arrays.items():
                write_array(folder / f"{name}.npy", values.astype(np.float32))
            write_json(folder / "about.json", about)

    def _cleaner(self, volumes: int) -> Cleaner | None:
        if not self.cleaning.in_time:
            return None
        confounds, kept = regressors(self.run, self.cleaning, volumes=volumes)
        if kept[: volumes - self.run.tail].sum() < 2:
            raise DataError(
                f"{self.run.scans[0]}: data.clean censors all but {kept.sum()} of its {volumes} "
                "volumes"
            )
        return Cleaner(
            self.cleaning,
            scan=self.run.scans[0],
            seconds=self.run.repetition_time,
            regressors=confounds,
            kept=kept,
        )

    def _displacement(self, volumes: int) -> tuple[Float[ndarray, " time"] | None, list[str]]:
        """Of the head, to be shown; a table that nobody asked for may be of no use."""
        try:
            return displacement_of(self.run, volumes=volumes), []
        except DataError as error:
            return None, [str(error)]
