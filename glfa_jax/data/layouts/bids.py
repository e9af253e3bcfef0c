"""BIDS derivatives, as fMRIPrep names them: surfaces, dense CIFTI series or volumes.

sub-01[/ses-1]/func/sub-01[_ses-1]_task-T[_run-01]..._bold.EXTENSION
    hemi-{L,R}_space-fsaverage5 and the like       .func.gii, one file a hemisphere
    space-fsLR_den-91k                             .dtseries.nii
    space-MNI152NLin2009cAsym_desc-preproc         .nii.gz
    ..._bold.json beside them                      RepetitionTime, StartTime (seconds)
    ..._desc-confounds_timeseries.tsv              for data.clean, and to be looked at
sub-01[/ses-1]/anat/..._hemi-{L,R}_space-..._curv.shape.gii    maps of anatomy, see data.anatomy
sub-01[/ses-1]/func/..._events.tsv                 onset duration trial_type stim_file repeat
stimuli/<stim_file>
stimuli/captions.tsv                               stim_file caption

Which of the three is read follows from the files there are for `data.space`. fMRIPrep does not
copy events and stimuli: where the derivative lies in <raw>/derivatives/<name>, <raw> is looked
through as well. Sidecars and events may also lie above the scans, for all that their names fit:
what lies nearest holds.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from glfa_jax import config
from glfa_jax.data import DataError, anatomy, surfaces
from glfa_jax.data.captions import read_captions
from glfa_jax.data.layouts import (
    LAYOUTS,
    Blocks,
    Layout,
    Problems,
    Run,
    Sides,
    Split,
    Study,
    Trial,
)
from glfa_jax.data.layouts.clips import with_clips
from glfa_jax.data.layouts.events import read_events
from glfa_jax.data.layouts.naming import FORM, Dataset, Name, natural
from glfa_jax.data.layouts.vectors import vectors_instead
from glfa_jax.data.readers import cifti, gifti_pair, header_of, trimmed, volume
from glfa_jax.data.timing import repetition_time
from glfa_jax.data.video import Part
from glfa_jax.files import read_object

GIFTI, CIFTI, VOLUME = ".func.gii", ".dtseries.nii", ".nii.gz"
SERIES = (GIFTI, CIFTI, f"{CIFTI}.gz", VOLUME, ".nii")
TOO_LONG = 1e9  # seconds; more digits may be more than a float has
# StartTime is half a repetition time, or that of volumes left out.
LATEST_START = 2  # repetition times


def read_study(data: config.Data, problems: Problems) -> Study:
    """Everything but the time series; what cannot be used goes to `problems`."""
    raw = _raw(data.root)
    inside = data.root / "stimuli"
    stimuli = raw / "stimuli" if raw is not None and not inside.is_dir() else inside
    captions_file = data.captions or stimuli / "captions.tsv"
    notes: list[str] = []
    reader = Reader(
        data,
        stimuli=stimuli,
        derivative=Dataset(data.root),
        raw=None if raw is None else Dataset(raw),
        mesh=cache(lambda: surfaces.load(data)),  # only volumes need it
        problems=problems,
        notes=notes,
    )
    runs = [run for subject in data.subjects for run in reader.runs(subject)]
    read = dict.fromkeys(run.subject for run in runs)
    maps = {
        subject: anatomy.find(reader.derivative, subject, space=data.space, notes=notes)
        for subject in read
    }
    found = {subject: own for subject, own in maps.items() if own}
    study = with_clips(
        runs,
        videos={trial.clip: Part(stimuli / trial.clip) for run in runs for trial in run.trials},
        captions=read_captions(captions_file, failed=problems.add),
        captions_file=captions_file,
        problems=problems,
        notes=list(dict.fromkeys(notes)),  # one file may hold for many runs
    )
    return replace(study, anatomy=found, files=(*study.files, *_files(found)))


def _files(found: Mapping[str, Mapping[str, Sides]]) -> Iterator[Path]:
    for maps in found.values():
        for sides in maps.values():
            yield from sides


def _raw(root: Path) -> Path | None:
    """The study that a derivative was made of, where it lies around it as BIDS recommends."""
    above = root.resolve().parent
    return above.parent if above.name == "derivatives" else None


@dataclass(frozen=True)
class Reader:
    """What the runs of all subjects are read with.

    events: reads the split and the trials of a run out of its table.
    """

    data: config.Data
    stimuli: Path
    derivative: Dataset
    raw: Dataset | None
    mesh: Callable[[], surfaces.Surfaces]
    problems: Problems
    notes: list[str]
    events: Callable[..., tuple[Split, tuple[Trial, ...]]] = read_events

    def runs(self, subject: str) -> list[Run]:
        data = self.data
        found = list(self.derivative.functional(subject, data.task))
        scans = [
            name
            for name in found
            if name.suffix == "bold"
            and name.extension in SERIES
            and name.entities.get("space") == data.space
        ]
        if not scans:
            self.problems.add(
                DataError(
                    f"{data.root / f'sub-{subject}'}: has no scans "
                    f"sub-{subject}_task-{data.task}_*space-{data.space}_*bold with one of the "
                    f"endings {GIFTI}, {CIFTI}, {VOLUME} in func or ses-*/func"
                    f"{vectors_instead(data.root / f'sub-{subject}')}"
                )
            )
            return []
        if self.raw is not None:
            found += self.raw.functional(subject, data.task)
        for name in found:
            if (name.suffix, name.extension) == ("events", ".tsv"):
                self._must_have_a_scan(name, scans)
        runs = []
        for key in sorted(dict.fromkeys(name.run for name in scans), key=natural):
            try:
                runs.append(self._run(subject, [name for name in scans if name.run == key]))
            except DataError as error:
                self.problems.add(error)
        return runs

    def _must_have_a_scan(self, events: Name, scans: list[Name]) -> None:
        if any(events.holds_for(scan, ignoring=FORM) for scan in scans):
            return
        sentence = f"{events.path}: has no scan in space {self.data.space} that belongs to it"
        if events.path.is_relative_to(self.data.root):
            self.problems.add(DataError(sentence))
        else:  # the raw study may have runs that were left out on purpose
            self.notes.append(sentence)

    def _run(self, subject: str, scans: list[Name]) -> Run:
        paths, scan = _scans(scans), scans[0]
        events = self._events(scan)
        confounds, tables = self._confounds(scan)
        sidecars, stated = self._sidecars(next(name for name in scans if name.path == paths[0]))
        headers = [header_of(path) for path in paths]
        step, *_ = [
            repetition_time(
                path,
                header=header.seconds,
                sidecar=float(stated["RepetitionTime"][0]),
                trust=self.data.repetition_time,
                notes=self.notes,
            )
            for path, header in zip(paths, headers, strict=True)
        ]
        start, said = stated["StartTime"]
        if not abs(start) <= LATEST_START * step:
            raise DataError(
                f"{said}: StartTime must be within {LATEST_START} repetition times of {step:g} s, "
                f"is {start:g} s"
            )
        split, trials = self.events(
            events, stimuli=self.stimuli, failed=self.problems.add, notes=self.notes
        )
        read = self._reader(scan.extension, paths)
        begin, end = self.data.drop_volumes
        return Run(
            subject=subject,
            name=scan.label,
            split=split,
            repetition_time=step,
            start_time=start + begin * step,
            trials=trials,
            scans=paths,
            files=(*paths, *sidecars, events, *tables),
            blocks=partial(trimmed, read, paths[0], begin, end) if begin or end else read,
            sides=tuple(values for header in headers for values in header.sides),
            dropped=(begin, end),
            confounds=confounds,
        )

    def _reader(self, kind: str, paths: tuple[Path, ...]) -> partial[Blocks]:
        if kind == GIFTI:
            return partial(gifti_pair, *paths)
        if kind.startswith(CIFTI):
            return partial(cifti, *paths)
        return partial(volume, *paths, self.mesh())

    def _events(self, scan: Name) -> Path:
        """The nearest table of the derivative, else of the raw study."""
        for dataset in filter(None, (self.derivative, self.raw)):
            found = dataset.inherited(
                scan, below=self.data.root, suffix="events", extensions=(".tsv",), ignoring=FORM
            )
            if found:
                return found[-1].path
        kept = [f"{key}-{value}" for key, value in scan.entities.items() if key not in FORM]
        subject = f"sub-{scan.entities['sub']}"
        looked = scan.path.parent, *([self.raw.root / subject] if self.raw else [])
        raise DataError(
            f"{scan.path.with_name('_'.join([*kept, 'events.tsv']))}: no such file; looked in "
            f"{' and '.join(map(str, looked))}"
        )

    def _confounds(self, scan: Name) -> tuple[Path | None, list[Path]]:
        """fMRIPrep's table, and it with its sidecar where the cleaning reads them."""
        asked = self.data.clean is not None and self.data.clean.reads_confounds
        for suffix in ("timeseries", "regressors"):  # as versions before 20.2 call it
            try:
                found = self.derivative.inherited(
                    scan,
                    below=self.data.root,
                    suffix=suffix,
                    extensions=(".tsv",),
                    ignoring=FORM,
                    having={"desc": "confounds"},
                )
            except DataError as error:
                if asked:
                    raise
                self.notes.append(str(error))
                return None, []
            if found:
                path = found[-1].path
                read = [path, path.with_suffix(".json")] if asked else []
                return path, [file for file in read if file.is_file()]
        return None, []

    def _sidecars(self, scan: Name) -> tuple[list[Path], dict[str, tuple[Any, Path]]]:
        """The files that say when volumes were taken, the nearest last; what they say, and which.

        The raw study is asked where the derivative does not tell the repetition time. BIDS lets a
        file without slice timing leave out StartTime.
        """
        stem, *endings = scan.path.name.split(".")
        # Some versions of fMRIPrep keep a part of the extension: _bold.dtseries.json.
        extensions = [".json", *(f".{ending}.json" for ending in endings[:-1])]
        paths: list[Path] = []
        stated: dict[str, tuple[Any, Path]] = {}
        for dataset in filter(None, (self.derivative, self.raw)):
            names = dataset.inherited(
                scan, below=self.data.root, suffix="bold", extensions=extensions
            )
            paths = [*(name.path for name in names), *paths]
            for name in reversed(names):
                sidecar = read_object(name.path, error=DataError)
                stated = {key: (value, name.path) for key, value in sidecar.items()} | stated
            if "RepetitionTime" in stated:
                break
        if not paths:
            raise DataError(
                f"{scan.path.with_name(f'{stem}.json')}: no such file, and it should say "
                "RepetitionTime"
            )
        if "RepetitionTime" not in stated:
            raise DataError(f"{paths[-1]}: must be JSON with RepetitionTime in seconds")
        stated.setdefault("StartTime", (0.0, paths[-1]))
        for name in ("RepetitionTime", "StartTime"):
            value, path = stated[name]
            plain = isinstance(value, int | float) and not isinstance(value, bool)
            if not plain or not abs(value) < TOO_LONG:
                raise DataError(f"{path}: {name} must be a number of seconds, is {value!r:.50}")
        return paths, stated


def _scans(scans: list[Name]) -> tuple[Path, ...]:
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


LAYOUTS.register(Layout("bids", read_study, timed_by_events=True, finds_captions=True))
