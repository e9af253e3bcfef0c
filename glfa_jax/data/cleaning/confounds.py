"""fMRIPrep's tables of confounds: what is regressed out, and which volumes the head moved in.

A table has a row for every volume of the scan's file; what comes out of here has one for every
volume that the run hands on.
"""

import fnmatch
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from glfa_jax import config
from glfa_jax.data import DataError
from glfa_jax.data.attributes import CONFOUNDS
from glfa_jax.data.layouts import Problems, Run
from glfa_jax.data.tables import read_header, read_table
from glfa_jax.files import reason

DISPLACEMENT, DVARS = "framewise_displacement", "std_dvars"
AROMA = "desc-smoothAROMAnonaggr"


def with_tables(
    runs: Sequence[Run], cleaning: config.Cleaning, problems: Problems
) -> tuple[Run, ...]:
    """The runs that have a table of confounds, where the cleaning needs one."""
    if not cleaning.reads_confounds:
        return tuple(runs)
    kept = []
    for run in runs:
        if run.confounds is not None:
            kept.append(run)
            continue
        option = "confounds" if cleaning.confounds is not None else "censor"
        problems.add(
            DataError(
                f"{run.scans[0]}: has no table of confounds beside it "
                f"(...{CONFOUNDS}timeseries.tsv), and data.clean.{option} needs one"
            )
        )
    return tuple(kept)


def displacement_of(run: Run, *, volumes: int) -> Float[ndarray, " time"] | None:
    """Framewise displacement of each volume, mm, NaN where the table says n/a; None without."""
    if run.confounds is None or DISPLACEMENT not in read_header(run.confounds):
        return None
    path = run.confounds
    [values] = _columns(path, [DISPLACEMENT]).T
    return _of_run(path, run, values, volumes=volumes)


def regressors(
    run: Run, cleaning: config.Cleaning, *, volumes: int
) -> tuple[Float[ndarray, "time r"], Bool[ndarray, " time"]]:
    """What is to be regressed out, and the volumes that are not censored."""
    found = np.zeros((volumes, 0))
    kept = np.ones(volumes, bool)
    given, censor = cleaning.confounds, cleaning.censor
    scrubs = False
    if given is not None:
        path = _table(run)
        if given.strategy or given.parts:
            scrubs = given.strategy == "scrubbing" or "scrub" in given.parts
            names, values, kept = _of_nilearn(path, run, given, censor if scrubs else None)
            kept = _of_run(path, run, kept, volumes=volumes)
            found = _filled(path, run, names, values, volumes=volumes)
        if given.columns:
            names = _matching(path, given.columns)
            values = _columns(path, names)
            own = _filled(path, run, names, values, volumes=volumes)
            found = np.concatenate([found, own], axis=1)
    if censor is not None and not scrubs:
        kept &= _still(_table(run), run, censor, volumes=volumes)
    return found, kept


def _table(run: Run) -> Path:
    assert run.confounds is not None  # runs without were left out before
    return run.confounds


def _of_nilearn(
    path: Path, run: Run, given: config.Confounds, censor: config.Censor | None
) -> tuple[list[str], Float[ndarray, "rows r"], Bool[ndarray, " rows"]]:
    """Names and values of the columns, and the rows to keep, as nilearn's strategy has them."""
    from nilearn.interfaces.fmriprep import load_confounds, load_confounds_strategy

    options: dict[str, Any] = dict(given.options)
    frame: Any
    if censor is not None:
        options |= {
            "fd_threshold": censor.framewise_displacement or math.inf,
            "std_dvars_threshold": censor.std_dvars or math.inf,
            "scrub": censor.shortest,
        }
    aroma = "ica_aroma" in (given.strategy, *given.parts)
    if aroma and AROMA not in run.scans[0].name:
        raise DataError(
            f"{run.scans[0]}: data.clean.confounds: ica_aroma needs scans that fMRIPrep has "
            f"denoised, {AROMA} in their names"
        )
    # nilearn finds the table by the name of the scan, of which it takes few forms.
    begin, _, _ = path.name.rpartition(CONFOUNDS)
    image = str(path.with_name(f"{begin}_{AROMA if aroma else 'desc-preproc'}_bold.nii.gz"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", "The following parameters are not needed")
        try:
            if given.strategy:
                frame, rows = load_confounds_strategy(image, given.strategy, **options)
            else:
                frame, rows = load_confounds(image, given.parts, **options)
        except (ValueError, KeyError, IndexError, TypeError, OSError, Warning) as error:
            named = given.strategy or ", ".join(given.parts)
            raise DataError(
                f"{path}: nilearn cannot take data.clean.confounds ({named}) from it "
                f"({reason(error)})"
            ) from None
    count = len(frame) if len(frame) else _rows(path)
    kept = np.ones(count, bool)
    if rows is not None:
        kept[:] = False
        kept[rows] = True
    values = np.asarray(frame, np.float64).reshape(count, -1)
    return [str(name) for name in frame.columns], values, kept


def _rows(path: Path) -> int:
    return len(read_table(path, columns=read_header(path)[:1]))


def _matching(path: Path, patterns: Sequence[str]) -> list[str]:
    header = read_header(path)
    found: dict[str, None] = {}
    for pattern in patterns:
        names = [name for name in header if fnmatch.fnmatchcase(name, pattern)]
        if not names:
            raise DataError(
                f"{path}: has no column {pattern} (data.clean.confounds.columns), its first line "
                f"names {', '.join(header) or 'none':.200}"
            )
        found |= dict.fromkeys(names)
    return list(found)


def _columns(path: Path, names: Sequence[str]) -> Float[ndarray, "rows r"]:
    """NaN for n/a."""
    rows = read_table(path, columns=names)
    values = np.empty((len(rows), len(names)))
    for place, row in enumerate(rows):
        for column, name in enumerate(names):
            try:
                values[place, column] = math.nan if row[name] == "n/a" else float(row[name])
            except ValueError:
                raise DataError(
                    f"{row.where}: {name} must be a number or n/a, is {row[name]!r:.50}"
                ) from None
    return values


def _of_run(path: Path, run: Run, values: ndarray, *, volumes: int) -> ndarray:
    """The rows of the volumes that the run hands on."""
    begin, end = run.dropped
    if len(values) != begin + volumes + end:
        raise DataError(
            f"{path}: has {len(values)} rows, must have one for each of the "
            f"{begin + volumes + end} volumes of {run.scans[0].name}"
        )
    return values[begin : begin + volumes]


def _filled(
    path: Path, run: Run, names: Sequence[str], values: Float[ndarray, "rows r"], *, volumes: int
) -> Float[ndarray, "time r"]:
    """Numbers throughout: what starts with n/a, as derivatives do, begins as it goes on."""
    values = values.copy()
    if len(values) > 1:
        values[0] = np.where(np.isnan(values[0]), values[1], values[0])
    for name, column in zip(names, values.T, strict=True):
        if np.isnan(column).all():
            raise DataError(f"{path}: {name} is n/a throughout; leave it out of data.clean")
    values = _of_run(path, run, values, volumes=volumes)
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        row, column = wrong[0]
        raise DataError(
            f"{path}: {names[column]} is no number in volume {run.dropped[0] + row} (counted from "
            "0); leave it out of data.clean"
        )
    return values


def _still(path: Path, run: Run, censor: config.Censor, *, volumes: int) -> Bool[ndarray, " time"]:
    """Volumes within both limits; a stretch of them that is too short does not count."""
    limits = {DISPLACEMENT: censor.framewise_displacement, DVARS: censor.std_dvars}
    asked = {name: limit for name, limit in limits.items() if limit is not None}
    values = _columns(path, list(asked))
    for name, column in zip(asked, values.T, strict=True):
        if np.isnan(column).all():
            raise DataError(f"{path}: {name} is n/a throughout; data.clean.censor needs it")
    # The first volume has no displacement, which censors nothing.
    values = _of_run(path, run, values, volumes=volumes)
    kept: ndarray = ~np.any(values > list(asked.values()), axis=1)
    if not kept.all():
        edges = np.flatnonzero(np.diff(np.r_[False, kept, False].astype(int)))
        for first, end in edges.reshape(-1, 2):
            if end - first < censor.shortest:
                kept[first:end] = False
    return kept
