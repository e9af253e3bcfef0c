"""Scanner files to the prepared store.

Reads each run and each video once, in several processes, and leaves what is finished beside the
store: the same command goes on after an interruption. Then puts the store together.
"""

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

from tqdm import tqdm

from glfa_jax import config
from glfa_jax.data import DataError, flatmap
from glfa_jax.data.anatomy import draw
from glfa_jax.data.assembling import Assembly
from glfa_jax.data.attributes import (
    Attributes,
    StoredFile,
    StoredRun,
    hash_of,
    identity_of,
)
from glfa_jax.data.cleaning.confounds import with_tables
from glfa_jax.data.clips import Clips, bundle
from glfa_jax.data.drawing import pixels_of
from glfa_jax.data.flatmap import FlatMap
from glfa_jax.data.layouts import SPLITS, Problems, Run, Study, cleaning_of, layout_of
from glfa_jax.data.layouts.reading import read_study
from glfa_jax.data.pieces import Scratch, carry_out, hashed
from glfa_jax.data.planning import Plan, plan, same_repetition_time, without_shared_clips
from glfa_jax.data.reuse import reuse, settings_of, uncleaned
from glfa_jax.data.signals import ReadRun, Signal
from glfa_jax.data.store import Store
from glfa_jax.data.summary import summary
from glfa_jax.starting import typed


def prepare(data: config.Data, *, progress: bool = True) -> Store:
    """Reads, z-scores, cuts and stores; reuses a store that fits.

    Raises DataError in one sentence; nothing half-written is left under the store's name, and
    what was finished is not done again.
    """
    layout_of(data)  # rejected before a store of another is
    _check_smoothing(data)
    if os.path.lexists(data.store):
        return _reused(data, progress=progress)
    problems = Problems(skip=data.on_error == "skip")
    try:
        study = read_study(data, problems)
        for line in problems.missing.lines if progress else ():
            print(DataError(line), flush=True)
        flat = flatmap.of(data)
        scratch = Scratch(data.store)
        with scratch.opened():
            if data.store.exists():  # another process was faster
                return _reused(data, progress=progress)
            _prepare(data, study, flat, scratch, problems, progress=progress)
    except DataError as error:
        if error is not problems.raised:
            raise
        raise DataError(f"{error}; with data.on_error: skip, the rest is prepared") from None
    return Store.open(data.store)


def _prepare(
    data: config.Data,
    study: Study,
    flat: FlatMap,
    scratch: Scratch,
    problems: Problems,
    *,
    progress: bool,
) -> None:
    runs = same_repetition_time(study.runs, problems)
    runs = without_shared_clips(runs, problems)
    runs = with_tables(runs, cleaning_of(data), problems)
    signals, videos = _read(data, study, runs, flat, scratch, problems, progress=progress)
    unreadable = {clip: why for piece in videos for clip, why in piece.failed.items()}
    for why in dict.fromkeys(unreadable.values()):
        problems.add(DataError(why))
    readable = {clip: piece for piece in videos for clip in piece.clips}
    made = plan(
        [(run, signal) for run, signal in zip(runs, signals, strict=True) if signal],
        data=data,
        unreadable=unreadable,
        problems=problems,
    )
    of_runs = [note for cut in made.cuts for note in cut.signal.notes]
    drawn = {
        subject: maps
        for subject in made.subjects
        if (maps := draw(study.anatomy.get(subject, {}), flat, problems))
    }
    missing = problems.missing.lines
    said = [*missing, *study.notes, *of_runs, *dict.fromkeys(problems.noted)]
    notes = [str(DataError(note)) for note in said]  # in a line that a terminal can show
    files = _files(data, study, made, videos)
    names = {subject: maps.names for subject, maps in drawn.items()}
    attributes = _attributes(data, study, made, files=files, notes=notes, anatomy=names)
    total = (len(made.subjects) + 1) * sum(map(len, made.keys.values()))
    with (
        tqdm(total=total, disable=not progress, unit="sample", desc="store") as bar,
        Store.create(
            data.store, attributes, mask=flat.mask, frames=data.frames, resolution=data.resolution
        ) as writer,
    ):
        assembly = Assembly(writer, made, mask=flat.mask, window=data.window, done=bar.update)
        assembly.write(readable)
        for subject, maps in drawn.items():
            writer.write(f"anatomy/sub-{subject}", maps.maps)
    if progress:
        notes = notes[len(missing) :]  # those were said before
        print("\n".join(summary(data, attributes, flat, made, notes=notes)), flush=True)


def _read(
    data: config.Data,
    study: Study,
    runs: Sequence[Run],
    flat: FlatMap,
    scratch: Scratch,
    problems: Problems,
    *,
    progress: bool,
) -> tuple[list[Signal | None], list[Clips]]:
    """Every run and video as a piece of the scratch; None for a run that cannot be read."""
    cleaning = cleaning_of(data)
    pixels = pixels_of(data, flat, width=cleaning.smooth_mm)
    shown = dict.fromkeys(trial.clip for run in runs for trial in run.trials)
    of_runs = [ReadRun(run, pixels, cleaning) for run in runs]
    of_clips = bundle(
        {clip: study.videos[clip] for clip in shown},
        frames=data.frames,
        resolution=data.resolution,
    )
    pieces = [*scratch.pieces("runs", of_runs), *scratch.pieces("videos", of_clips)]
    carry_out(pieces, workers=data.workers, failed=problems.add, progress=progress)
    found = [piece if piece.is_dir() else None for _, piece in pieces]
    signals = [piece and Signal.read(piece) for piece in found[: len(runs)]]
    return signals, [Clips.read(piece) for piece in found[len(runs) :] if piece]


def _attributes(
    data: config.Data,
    study: Study,
    made: Plan,
    *,
    files: Mapping[str, StoredFile],
    notes: list[str],
    anatomy: dict[str, list[str]],
) -> Attributes:
    settings = settings_of(data)
    runs: list[StoredRun] = [
        {
            "subject": cut.run.subject,
            "name": cut.run.name,
            "split": cut.run.split,
            "volumes": cut.signal.kept,
            "missing": cut.missing,
            **cut.signal.quality,
        }
        for cut in made.cuts
    ]
    return Attributes(
        subjects=made.subjects,
        repetition_time=made.cuts[0].run.repetition_time,
        lag_seconds=data.lag_seconds,
        window=data.window,
        clips={split: [clip for clip, _ in made.keys[split]] for split in SPLITS},
        captions={
            split: [study.captions[clip] for clip, _ in made.keys[split]] for split in SPLITS
        },
        clip_seconds=median(t.duration for cut in made.cuts for t in cut.run.trials),
        layout=data.layout,
        space=data.space,
        repeats={subject: made.repeats(subject) for subject in made.subjects},
        runs=runs,
        notes=notes,
        anatomy=anatomy,
        kinds=_kinds(made),
        fingerprint=hash_of(settings),
        identity=identity_of(settings, files),
        provenance={
            "root": str(data.root),
            "settings": settings,
            "files": dict(files),
            "glfa_jax": version("glfa_jax"),
        },
    )


def _kinds(made: Plan) -> tuple[str, ...]:
    """What there is to look at besides what every store has."""
    there = {name for cut in made.cuts for name in cut.signal.arrays}
    return tuple(sorted(there))


def _check_smoothing(data: config.Data) -> None:
    if cleaning_of(data).smooth_mm is not None and layout_of(data).mask is not None:
        raise DataError(
            f"data.clean.smooth_mm: scans of layout {data.layout} are images of the flat cortex, "
            "without surfaces to smooth along; leave it out"
        )


def _files(
    data: config.Data, study: Study, made: Plan, videos: Sequence[Clips]
) -> dict[str, StoredFile]:
    """Size and hash of every file that is in the store, in the study's order."""
    known: dict[str, StoredFile] = {}
    for piece in (*(cut.signal for cut in made.cuts), *videos):
        known |= piece.files
    read = {str(file) for cut in made.cuts for file in cut.run.files}
    used = {str(study.videos[clip].path) for split in SPLITS for clip, _ in made.keys[split]}
    of_runs = {str(file) for run in study.runs for file in run.files}
    of_videos = {str(part.path) for part in study.videos.values()}
    files = {}
    for file in (*study.files, *_geometry(data)):
        name = str(file)
        left_out = (name in of_runs and name not in read) or (name in of_videos - used)
        if not left_out and name not in files:
            files[name] = known.get(name) or hashed(file)
    return {_relative(Path(name), data.root): entry for name, entry in files.items()}


def _geometry(data: config.Data) -> Iterator[Path]:
    """The files that the flat map is made of."""
    if data.surfaces is not None:
        for pair in (data.surfaces.flat, data.surfaces.pial, data.surfaces.white):
            yield from pair or ()
    if data.region is not None:
        yield from data.region.labels or ()
        yield from filter(None, [data.region.mask])
    elif (mask := layout_of(data).mask) is not None:
        yield data.root / mask


def _relative(file: Path, root: Path) -> str:
    return str(file.relative_to(root) if file.is_relative_to(root) else file.resolve())


def _reused(data: config.Data, *, progress: bool) -> Store:
    store = reuse(data)
    if progress:
        print(f"{data.store}: up to date, reused", flush=True)
        if (sentence := uncleaned(store, data)) is not None:
            print(f"  warning: {sentence}", flush=True)
        if (count := len(store.attributes.notes)) > 0:
            look = f"{typed('glfa_jax.data.look')} {shlex.quote(str(data.store))}"
            print(f"  noted when it was prepared: {count}, see {look}", flush=True)
    return store
