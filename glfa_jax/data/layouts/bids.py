"""BIDS derivatives, as fMRIPrep names them: surfaces, dense CIFTI series or volumes.

sub-01[/ses-1]/func/sub-01[_ses-1]_task-T[_run-01]..._bold.EXTENSION
    hemi-{L,R}_space-fsaverage5 and the like       .func.gii, one file a hemisphere
    space-fsLR_den-91k                             .dtseries.nii
    space-MNI152NLin2009cAsym_desc-preproc         .nii.gz
    ..._bold.json beside them                      RepetitionTime, StartTime (seconds)
sub-01[/ses-1]/func/..._events.tsv                 onset duration trial_type stim_file repeat
stimuli/<stim_file>
stimuli/captions.tsv                               stim_file caption

Which of the three is read follows from the files there are for `data.space`. fMRIPrep does not
copy events and stimuli: where the derivative lies in <raw>/derivatives/<name>, <raw> is looked
through as well.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from glfa_jax import config
from glfa_jax.data import DataError, surfaces
from glfa_jax.data.captions import read_captions
from glfa_jax.data.layouts import SPLITS, Blocks, Problems, Run, Split, Study, Trial
from glfa_jax.data.layouts.clips import with_clips
from glfa_jax.data.readers import (
    check_step,
    cifti,
    cifti_header,
    gifti_pair,
    trimmed,
    volume,
    volume_header,
)
from glfa_jax.data.tables import read_table
from glfa_jax.data.video import Part

EVENT_COLUMNS = ("onset", "duration", "trial_type", "stim_file", "repeat")
GIFTI, CIFTI, VOLUME = ".func.gii", ".dtseries.nii", ".nii.gz"
# Entities that say in which form a scan is given, not which scan it is.
_FORM = ("hemi", "space", "den", "res", "desc", "echo", "part")

Key = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Name:
    """A file's name taken apart: key-value entities, then suffix and extension."""

    path: Path
    entities: Mapping[str, str]
    suffix: str
    extension: str

    @classmethod
    def parse(cls, path: Path) -> "_Name | None":
        stem, dot, extension = path.name.partition(".")
        *pairs, suffix = stem.split("_")
        entities = [pair.partition("-") for pair in pairs]
        if not all(key and dash and value for key, dash, value in entities):
            return None
        return cls(path, {key: value for key, _, value in entities}, suffix, dot + extension)

    @property
    def run(self) -> Key:
        """What tells the runs of a subject and task apart."""
        skip = ("sub", "task", *_FORM)
        return tuple((key, value) for key, value in self.entities.items() if key not in skip)


def read_study(data: config.Data, problems: Problems) -> Study:
    """Everything but the time series; what cannot be used goes to `problems`."""
    stimuli = _stimuli(data.root)
    captions_file = data.captions or stimuli / "captions.tsv"
    captions = read_captions(captions_file)
    notes: list[str] = []
    mesh = cache(lambda: surfaces.load(data))  # only volumes need it
    runs = [run for subject in data.subjects for run in _runs(data, subject, mesh, problems, notes)]
    return with_clips(
        runs,
        videos={trial.clip: Part(stimuli / trial.clip) for run in runs for trial in run.trials},
        captions=captions,
        captions_file=captions_file,
        problems=problems,
        notes=notes,
    )


def _raw(root: Path) -> Path | None:
    """The study that a derivative was made of, where it lies around it as BIDS recommends."""
    above = root.resolve().parent
    return above.parent if above.name == "derivatives" else None


def _stimuli(root: Path) -> Path:
    raw = _raw(root)
    inside = root / "stimuli"
    return raw / "stimuli" if raw is not None and not inside.is_dir() else inside


def _folders(root: Path, subject: str) -> list[Path]:
    """The folders with functional scans, of all sessions."""
    folder = root / f"sub-{subject}"
    return sorted(path for path in (folder / "func", *folder.glob("ses-*/func")) if path.is_dir())


def _names(folders: list[Path], subject: str, task: str) -> Iterator[_Name]:
    for folder in folders:
        for path in sorted(folder.iterdir()):
            name = _Name.parse(path)
            if name and name.entities.get("sub") == subject and name.entities.get("task") == task:
                yield name


def _runs(
    data: config.Data,
    subject: str,
    mesh: Callable[[], surfaces.Surfaces],
    problems: Problems,
    notes: list[str],
) -> list[Run]:
    folders = _folders(data.root, subject)
    found = list(_names(folders, subject, data.task))
    scans = [
        name
        for name in found
        if name.suffix == "bold"
        and name.extension in (GIFTI, CIFTI, VOLUME, ".nii")
        and name.entities.get("space") == data.space
    ]
    raw = _raw(data.root)
    if raw is not None:
        found += _names(_folders(raw, subject), subject, data.task)
    events = [name for name in found if (name.suffix, name.extension) == ("events", ".tsv")]
    keys = sorted({name.run for name in scans}, key=_natural)
    if not keys:
        problems.add(
            DataError(
                f"{data.root / f'sub-{subject}'}: has no scans "
                f"sub-{subject}_task-{data.task}_*space-{data.space}_*bold with one of the endings "
                f"{GIFTI}, {CIFTI}, {VOLUME} in func or ses-*/func"
            )
        )
    for name in events if keys else ():
        if name.run not in keys:
            sentence = f"{name.path}: has no scan in space {data.space} that belongs to it"
            if name.path.is_relative_to(data.root):
                problems.add(DataError(sentence))
            else:  # the raw study may have runs that were left out on purpose
                notes.append(sentence)
    runs = []
    for key in keys:
        try:
            mine = [name for name in scans if name.run == key]
            told = [name.path for name in events if name.run == key]
            if not told:
                looked = mine[0].path.parent, *([raw / f"sub-{subject}"] if raw else [])
                raise DataError(
                    f"{_events_path(mine[0])}: no such file; looked in "
                    f"{' and '.join(map(str, looked))}"
                )
            runs.append(_run(data, subject, key, mine, told[0], mesh))
        except DataError as error:
            problems.add(error)
    return runs


def _natural(key: Key) -> list:
    """Run 10 after run 2."""
    return [
        (name, [(int(part), "") if part.isdigit() else (-1, part) for part in _digits(value)])
        for name, value in key
    ]


def _digits(text: str) -> list[str]:
    return [part for part in re.split(r"(\d+)", text) if part]


def _events_path(scan: _Name) -> Path:
    kept = [f"{key}-{value}" for key, value in scan.entities.items() if key not in _FORM]
    return scan.path.with_name("_".join([*kept, "events.tsv"]))


def _run(
    data: config.Data,
    subject: str,
    key: Key,
    scans: list[_Name],
    events: Path,
    mesh: Callable[[], surfaces.Surfaces],
) -> Run:
    paths = _scans(scans)
    sidecar = _sidecar(paths[0])
    repetition_time, start_time = _timing(sidecar)
    split, trials = _events(events)
    kind = scans[0].extension
    read: partial[Blocks]
    if kind == GIFTI:
        read = partial(gifti_pair, *paths)
    elif kind == CIFTI:
        check_step(paths[0], cifti_header(paths[0])[1], repetition_time=repetition_time)
        read = partial(cifti, *paths)
    else:
        check_step(paths[0], volume_header(paths[0])[1], repetition_time=repetition_time)
        read = partial(volume, *paths, mesh())
    begin, end = data.drop_volumes
    return Run(
        subject=subject,
        name=_label(key),
        split=split,
        repetition_time=repetition_time,
        start_time=start_time + begin * repetition_time,
        trials=trials,
        scans=paths,
        files=(*paths, sidecar, events),
        blocks=partial(trimmed, read, paths[0], begin, end) if begin or end else read,
    )


def _label(key: Key) -> str:
    """The run's number where that tells all, else every entity: ses-1_run-02."""
    if len(key) == 1 and key[0][0] == "run":
        return key[0][1]
    return "_".join(f"{name}-{value}" for name, value in key) or "only"


def _scans(scans: list[_Name]) -> tuple[Path, ...]:
    """The one file, or one a hemisphere, that a run is read from."""
    first = scans[0].path
    if {name.extension for name in scans} != {GIFTI}:
        if len(scans) > 1:
            several = ", ".join(name.path.name for name in scans)
            raise DataError(
                f"{first.parent}: one run in several forms ({several}); leave one of them there"
            )
        return (first,)
    sides = []
    for side, other in ("LR", "RL"):
        found = [name for name in scans if name.entities.get("hemi") == side]
        if not found:
            gone = first.name.replace(f"_hemi-{other}_", f"_hemi-{side}_")
            raise DataError(f"{first.with_name(gone)}: no such file, though {first.name} is there")
        if len(found) > 1:
            several = ", ".join(name.path.name for name in found)
            raise DataError(
                f"{first.parent}: one hemisphere in several forms ({several}); leave one of them "
                "there"
            )
        sides.append(found[0].path)
    return tuple(sides)


def _sidecar(scan: Path) -> Path:
    stem, *endings = scan.name.split(".")
    # Some versions of fMRIPrep keep a part of the extension: _bold.dtseries.json.
    names = [f"{stem}.json", *(f"{stem}.{ending}.json" for ending in endings[:-1])]
    for name in names:
        if scan.with_name(name).is_file():
            return scan.with_name(name)
    raise DataError(f"{scan.with_name(names[0])}: no such file, and it should say RepetitionTime")


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
