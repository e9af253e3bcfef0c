"""BIDS derivatives on a surface, as fMRIPrep names them.

sub-01/func/sub-01_task-T_run-01_hemi-{L,R}_space-S_bold.func.gii
sub-01/func/sub-01_task-T_run-01_hemi-L_space-S_bold.json     RepetitionTime,
                                                                  StartTime (seconds)
sub-01/func/sub-01_task-T_run-01_events.tsv                   onset duration trial_type
                                                              stim_file repeat
stimuli/<stim_file>
stimuli/captions.tsv                                          stim_file caption
"""

import json
import math
import re
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from xml.parsers.expat import ExpatError

import numpy as np
from jaxtyping import Float
from nibabel.filebasedimages import ImageFileError
from nibabel.gifti.gifti import GiftiImage
from numpy import ndarray

from glfa_jax.data import DataError
from glfa_jax.data.captions import read_captions
from glfa_jax.data.layouts import SPLITS, Run, Split, Study, Trial
from glfa_jax.data.tables import read_table

EVENT_COLUMNS = ("onset", "duration", "trial_type", "stim_file", "repeat")
_DAMAGED = (ExpatError, zlib.error, ImageFileError)


def read_study(root: Path, *, subjects: Sequence[str], task: str, space: str) -> Study:
    """Reads everything but the time series; raises DataError for whatever is missing."""
    if not root.is_dir():
        raise DataError(f"{root}: no such study folder")
    runs = tuple(run for subject in subjects for run in _runs(root, subject, task, space))
    stimuli = root / "stimuli"
    captions = read_captions(stimuli / "captions.tsv")
    videos: dict[str, Path] = {}
    for run in runs:
        for trial in run.trials:
            videos.setdefault(trial.clip, stimuli / trial.clip)
    for clip, video in videos.items():
        if not video.is_file():
            raise DataError(f"{video}: no such video file, though events name it")
        if clip not in captions:
            raise DataError(f"{stimuli / 'captions.tsv'}: has no caption for clip {clip}")
    files = (
        *(file for run in runs for file in run.files),
        *videos.values(),
        stimuli / "captions.tsv",
    )
    return Study(runs, videos, {clip: captions[clip] for clip in videos}, files)


def _runs(root: Path, subject: str, task: str, space: str) -> list[Run]:
    folder = root / f"sub-{subject}" / "func"
    stem = f"sub-{subject}_task-{task}_run-"
    names = re.compile(
        rf"{re.escape(stem)}(\w+)_(?:hemi-[LR]_space-{re.escape(space)}_bold\.func\.gii|events\.tsv)"
    )
    found = (names.fullmatch(path.name) for path in sorted(folder.glob(f"{stem}*")))
    numbers = sorted({match[1] for match in found if match})
    if not numbers:
        raise DataError(f"{folder}: has no runs {stem}*_hemi-L_space-{space}_bold.func.gii")
    return [_run(folder, subject, number, f"{stem}{number}", space) for number in numbers]


def _run(folder: Path, subject: str, number: str, stem: str, space: str) -> Run:
    scans = tuple(folder / f"{stem}_hemi-{side}_space-{space}_bold.func.gii" for side in "LR")
    sidecar = folder / f"{stem}_hemi-L_space-{space}_bold.json"
    events = folder / f"{stem}_events.tsv"
    for path in (*scans, sidecar, events):
        if not path.is_file():
            raise DataError(f"{path}: no such file, though run {number} has others")
    split, trials = _events(events)
    repetition_time, start_time = _timing(sidecar)
    return Run(
        subject=subject,
        name=number,
        split=split,
        repetition_time=repetition_time,
        start_time=start_time,
        trials=trials,
        scans=scans,
        events=events,
        files=(*scans, sidecar, events),
        load=partial(_load, *scans),
    )


def _timing(path: Path) -> tuple[float, float]:
    """RepetitionTime and StartTime; BIDS lets a file without slice timing leave out the latter."""
    try:
        sidecar = json.loads(path.read_text(encoding="utf-8"))
        values = sidecar["RepetitionTime"], sidecar.get("StartTime", 0.0)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{path}: must be JSON with RepetitionTime in seconds") from None
    for name, value in zip(("RepetitionTime", "StartTime"), values, strict=True):
        if isinstance(value, bool) or not isinstance(value, int | float) or not value < math.inf:
            raise DataError(f"{path}: {name} must be a number of seconds, is {value!r}")
    repetition, start = map(float, values)
    if not 0 <= start <= repetition or repetition == 0:
        raise DataError(
            f"{path}: RepetitionTime must be positive and StartTime within it, are {repetition} "
            f"and {start}"
        )
    return repetition, start


def _events(path: Path) -> tuple[Split, tuple[Trial, ...]]:
    rows = read_table(path, columns=EVENT_COLUMNS)
    if not rows:
        raise DataError(f"{path}: lists no trials")
    kinds = sorted({row["trial_type"] for row in rows})
    splits: list[Split] = [split for split in SPLITS if kinds == [split]]
    if not splits:
        raise DataError(
            f"{path}: trial_type must be train or test throughout, is {', '.join(kinds)}"
        )
    return splits[0], tuple(_trial(path, line, row) for line, row in enumerate(rows, start=2))


def _trial(path: Path, line: int, row: dict[str, str]) -> Trial:
    numbers = {}
    for name, kind, least in (("onset", float, 0), ("duration", float, 0), ("repeat", int, 0)):
        try:
            numbers[name] = kind(row[name])
        except ValueError:
            numbers[name] = math.nan
        if not least <= numbers[name] < math.inf:
            raise DataError(f"{path}: line {line}: {name} must be a number >= 0, is {row[name]!r}")
    clip = Path(row["stim_file"])
    if clip.is_absolute() or ".." in clip.parts or not row["stim_file"]:
        raise DataError(f"{path}: line {line}: stim_file must name a file inside stimuli/")
    # BIDS counts stim_file from stimuli/; some writers repeat the folder.
    parts = clip.parts[1:] if clip.parts[0] == "stimuli" else clip.parts
    return Trial("/".join(parts), numbers["onset"], numbers["duration"], numbers["repeat"])


def _load(left: Path, right: Path) -> Float[ndarray, "time vertices"]:
    sides = [_load_gifti(path) for path in (left, right)]
    if len(sides[0]) != len(sides[1]):
        raise DataError(
            f"{left.parent}: hemispheres of different length, {len(sides[0])} volumes in "
            f"{left.name} and {len(sides[1])} in {right.name}"
        )
    return np.concatenate(sides, axis=1)


def _load_gifti(path: Path) -> Float[ndarray, "time v"]:
    try:
        arrays = [np.asarray(array.data) for array in GiftiImage.from_filename(path).darrays]
        series = arrays[0].T if len(arrays) == 1 and arrays[0].ndim == 2 else np.stack(arrays)
    # What a damaged file raises depends on where it ends: XML, base64, zlib or array shape.
    except (*_DAMAGED, ValueError, OSError, EOFError, IndexError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: truncated or no GIFTI ({reason})") from None
    if series.ndim != 2:
        raise DataError(f"{path}: must hold one value per vertex and volume, holds {series.shape}")
    return series.astype(np.float32)
