"""A run of a few vertices with drift and a table of confounds, and its flat map."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from glfa_jax import config
from glfa_jax.data.layouts import Run
from glfa_jax.data.signals import Pixels, ReadRun, Signal

VALUES, VOLUMES, TAIL, BEGIN = 30, 80, 3, 2
TR = 2.0
RNG = np.random.default_rng(0)
TIME = np.linspace(-1, 1, VOLUMES)
# On a low mean, so that the 32 bits of scans cost less than a millionth of the spread.
DRIFT = 8 * (TIME**3 - TIME)[:, None] * RNG.normal(size=VALUES)
SERIES = (20 + RNG.normal(size=(VOLUMES, VALUES)) + DRIFT).astype(np.float32)
WEIGHTS = csr_array(np.where(RNG.random((9, VALUES)) < 0.3, RNG.random((9, VALUES)), 0))
MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")


class Drawn:
    """As much of a flat map as is needed: 9 of 16 pixels are cortex."""

    mask = np.arange(16).reshape(4, 4) < 9
    weights = csr_array(np.concatenate([WEIGHTS.toarray(), np.zeros((7, VALUES))]))
    sides = (18, 12)
    walls = ()


def columns(volumes: int = BEGIN + VOLUMES) -> dict[str, list[str]]:
    """As fMRIPrep names them; what begins with n/a there does here."""
    rng = np.random.default_rng(1)
    found = {}
    for name in (*MOTION, "csf", "white_matter"):
        values = np.cumsum(rng.normal(size=volumes)) / 10
        steps = np.r_[np.nan, np.diff(values)]
        found |= {name: values, f"{name}_derivative1": steps}
        found |= {f"{name}_power2": values**2, f"{name}_derivative1_power2": steps**2}
    wave = np.cos(np.pi / volumes * (np.arange(volumes) + 0.5))
    found |= {"cosine00": wave, "cosine01": wave**2}
    found["framewise_displacement"] = np.r_[np.nan, np.full(volumes - 1, 0.1)]
    found["std_dvars"] = np.r_[np.nan, np.full(volumes - 1, 1.0)]
    return {
        name: ["n/a" if np.isnan(value) else repr(float(value)) for value in values]
        for name, values in found.items()
    }


def write_table(path: Path, given: dict[str, list[str]]) -> Path:
    rows = zip(*given.values(), strict=True)
    path.write_text("\n".join("\t".join(row) for row in [tuple(given), *rows]) + "\n")
    return path


def blocks(series: np.ndarray) -> Iterator[np.ndarray]:
    yield from (series[:33], series[33:])


def run_in(folder: Path, *, series: np.ndarray = SERIES, table: Path | None = None) -> Run:
    scans = tuple(folder / f"sub-01_task-clips_hemi-{side}_bold.func.gii" for side in "LR")
    for scan in scans:
        scan.write_bytes(b"scan")
    run = Run("01", "1", "train", TR, 0.0, (), scans, scans, partial(blocks, series), TAIL)
    return replace(run, dropped=(BEGIN, 0), confounds=table)


def table_in(folder: Path, **changes: list[str]) -> Path:
    """changes: columns that differ."""
    return write_table(
        folder / "sub-01_task-clips_desc-confounds_timeseries.tsv", columns() | changes
    )


def cleaned(run: Run, cleaning: config.Cleaning, folder: Path) -> Signal:
    task = ReadRun(run, Pixels.of(Drawn), cleaning)
    piece = folder / "runs" / task.key[:12]
    task.write(piece)
    return Signal.read(piece)


def moved(*volumes: int, most: float = 0.9) -> list[str]:
    """Framewise displacement, with jerks at volumes counted as the run hands them on."""
    found = columns()["framewise_displacement"]
    for volume in volumes:
        found[BEGIN + volume] = str(most)
    return found
