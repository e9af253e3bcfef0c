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

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path

from glfa_jax import config
from glfa_jax.data import DataError, anatomy, surfaces
from glfa_jax.data.layouts import (
    LAYOUTS,
    Layout,
    Problems,
    Run,
    Sides,
    Split,
    Study,
    Trial,
)
from glfa_jax.data.layouts.beside import Beside, raw_of
from glfa_jax.data.layouts.clips import with_clips
from glfa_jax.data.layouts.cutting import Showing, numbered
from glfa_jax.data.layouts.dividing import Division
from glfa_jax.data.layouts.events import read_events
from glfa_jax.data.layouts.film_captions import captions_of
from glfa_jax.data.layouts.filmed import Filmed
from glfa_jax.data.layouts.naming import FORM, Dataset, Name, in_order
from glfa_jax.data.layouts.scans import (
    CIFTI,
    GIFTI,
    SERIES,
    VOLUME,
    lacking_side,
    reader_of,
    scans_of,
)
from glfa_jax.data.layouts.vectors import vectors_instead
from glfa_jax.data.readers import header_of, trimmed
from glfa_jax.data.timing import repetition_time
from glfa_jax.data.video import Part
from glfa_jax.files import is_fetched

# StartTime is half a repetition time, or that of volumes left out.
LATEST_START = 2  # repetition times


def read_study(data: config.Data, problems: Problems) -> Study:
    """Everything but the time series; what cannot be used goes to `problems`."""
    raw = raw_of(data.root)
    beside = Beside(Dataset(data.root), None if raw is None else Dataset(raw))
    stimuli = beside.stimuli
    captions_file = data.captions or stimuli / "captions.tsv"
    notes: list[str] = []
    filmed = data.films and Filmed(
        data.films, stimuli=stimuli, missing=problems.missing, notes=notes
    )
    length = None if filmed is None else filmed.length
    division = data.split and Division(
        data.split, lag=data.lag_seconds, window=data.window, length=length
    )
    reader = Reader(
        data,
        stimuli=stimuli,
        beside=beside,
        mesh=cache(lambda: surfaces.load(data)),  # only volumes need it
        filmed=filmed,
        division=division,
        problems=problems,
        notes=notes,
    )
    runs = numbered([run for subject in data.subjects for run in reader.runs(subject)])
    for error in reader.in_vain(runs):
        if problems.missing.lines:  # what it is for may not be there
            notes.append(str(error))
        else:
            problems.add(error)
    notes += division.notes() if division else ()
    read = dict.fromkeys(run.subject for run in runs)
    mesh = surfaces.mesh_of(data)
    maps = {
        subject: anatomy.find(reader.beside.derivative, subject, space=mesh, notes=notes)
        for subject in read
        if mesh
    }
    found = {subject: own for subject, own in maps.items() if own}
    study = with_clips(
        runs,
        videos=reader.videos,
        captions=captions_of(reader.videos, captions_file, stimuli, failed=problems.add),
        captions_file=captions_file,
        problems=problems,
        notes=list(dict.fromkeys(notes)),  # one file may hold for many runs
    )
    return replace(study, anatomy=found, files=(*study.files, *_files(found)))


def _files(found: Mapping[str, Mapping[str, Sides]]) -> Iterator[Path]:
    for maps in found.values():
        for sides in maps.values():
            yield from sides


@dataclass(frozen=True)
class Reader:
    """What the runs of all subjects are read with; videos: the file, or part, of each clip;
    passed_over: values of `trial_type` that a study has for what is no trial."""

    data: config.Data
    stimuli: Path
    beside: Beside
    mesh: Callable[[], surfaces.Surfaces]
    filmed: Filmed | None
    division: Division | None
    problems: Problems
    notes: list[str]
    passed_over: tuple[str, ...] = ()
    videos: dict[str, Part] = field(default_factory=dict)

    @property
    def tasks(self) -> tuple[str, ...]:
        return (self.data.task,) if isinstance(self.data.task, str) else self.data.task

    @property
    def several(self) -> bool:
        """Whether runs of more than one task may be read."""
        return len(self.tasks) > 1 or any(letter in "*?[" for task in self.tasks for letter in task)

    def runs(self, subject: str) -> list[Run]:
        data = self.data
        found = list(self.beside.derivative.functional(subject, self.tasks))
        scans = [
            name
            for name in found
            if name.suffix == "bold"
            and name.extension in SERIES
            and name.entities.get("space") == data.space
        ]
        if not scans:
            tasks = "|".join(self.tasks)
            self.problems.add(
                DataError(
                    f"{data.root / f'sub-{subject}'}: has no scans "
                    f"sub-{subject}_task-{tasks}_*space-{data.space}_*bold with one of the "
                    f"endings {GIFTI}, {CIFTI}, {VOLUME} in func or ses-*/func"
                    f"{vectors_instead(data.root / f'sub-{subject}')}"
                )
            )
            return []
        if self.beside.raw is not None:
            found += self.beside.raw.functional(subject, self.tasks)
        for name in found:
            if (name.suffix, name.extension) == ("events", ".tsv") and not any(
                name.holds_for(scan, ignoring=FORM) for scan in scans
            ):
                self._lacks(subject, name)
        runs: list[Run] = []
        keys = dict.fromkeys(name.run(tasks=self.several) for name in scans)
        for key in sorted(keys, key=in_order):
            of_run = [name for name in scans if name.run(tasks=self.several) == key]
            try:
                if side := lacking_side(of_run):
                    self._lacks(subject, of_run[0], side)
                    continue
                paths = scans_of(of_run)
                if all(map(is_fetched, paths)):
                    runs += self._run(subject, of_run, paths)
                else:
                    self._lacks(subject, of_run[0])
            except DataError as error:
                self.problems.add(error)
        return runs

    def _lacks(self, subject: str, name: Name, side: str = "") -> None:
        label = name.label(tasks=self.several)
        what = f" ({side} hemisphere)" if side else ""
        self.problems.missing.run(subject, f"run {label}{what}")

    def in_vain(self, runs: Sequence[Run]) -> Iterator[DataError]:
        """What the configuration says of runs, and no run is like that."""
        if not runs:
            return  # other sentences say why
        for each in filter(None, (self.filmed, self.division)):
            yield from each.in_vain()

    def _run(self, subject: str, scans: list[Name], paths: tuple[Path, ...]) -> list[Run]:
        data, scan = self.data, scans[0]
        asked = data.clean is not None and data.clean.reads_confounds
        confounds, tables = self.beside.confounds(scan, asked=asked, notes=self.notes)
        sidecars, stated = self.beside.sidecars(
            next(name for name in scans if name.path == paths[0])
        )
        headers = [header_of(path) for path in paths]
        step, *_ = [
            repetition_time(
                path,
                header=header.seconds,
                sidecar=float(stated["RepetitionTime"][0]),
                trust=data.repetition_time,
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
        shown = self._shown(scan, step)
        if not shown.trials:
            return []  # of films that are not there
        read = reader_of(scan.extension, paths, self.mesh)
        begin, end = data.drop_volumes
        run = Run(
            subject=subject,
            name=scan.label(tasks=self.several),
            split=shown.split,
            repetition_time=step,
            start_time=start + begin * step,
            trials=shown.trials,
            scans=paths,
            files=(*paths, *sidecars, *shown.files, *tables),
            blocks=partial(trimmed, read, paths[0], begin, end) if begin or end else read,
            sides=tuple(values for header in headers for values in header.sides),
            dropped=(begin, end),
            confounds=confounds,
            film_end=shown.film_end,
        )
        if self.division is None:
            return [run]

        def volumes() -> int:
            known = headers[0].volumes
            return known - begin - end if known else sum(map(len, run.blocks()))

        return self.division.parts(run, scan, videos=self.videos, volumes=volumes)

    def _shown(self, scan: Name, step: float) -> "_Shown":
        """What a run shows, by the configuration or by its events."""
        showings = [] if self.filmed is None else self.filmed.stated(scan)
        split: Split | None = None
        trials: tuple[Trial, ...] = ()
        files, said = (), "data.films.shown"
        if not showings:
            events = self.beside.events(scan)
            split, trials = read_events(
                events,
                stimuli=self.stimuli,
                failed=self.problems.add,
                notes=self.notes,
                divided=self.division is not None,
                films=self.filmed is not None,
                passed_over=self.passed_over,
            )
            files, said = (events,), str(events)
            showings = [Showing(t.clip, t.onset, 0.0, t.duration, t.repeat) for t in trials]
        if self.filmed is None:
            self.videos.update((trial.clip, Part(self.stimuli / trial.clip)) for trial in trials)
            return _Shown(split or "train", trials, files)
        trials, film_end = self.filmed.clips(showings, said=said, step=step)
        self.videos.update(self.filmed.videos)
        return _Shown(split or "train", trials, files, film_end)


@dataclass(frozen=True)
class _Shown:
    """What a run shows and the files that say so; split: any where `data.split` is to say it."""

    split: Split
    trials: tuple[Trial, ...]
    files: tuple[Path, ...]
    film_end: float | None = None


LAYOUTS.register(
    Layout("bids", read_study, timed_by_events=True, finds_captions=True, divides=True)
)
