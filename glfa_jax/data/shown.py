"""What one run showed when, where no study is configured: by a table, by films, or unknown."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from glfa_jax.data import DataError
from glfa_jax.data.captions import MISSING
from glfa_jax.data.layouts import Run, Trial
from glfa_jax.data.layouts.cutting import (
    ROUNDED,
    ROUNDING,
    Showing,
    check_length,
    check_one_at_a_time,
    cut,
    length_of,
)
from glfa_jax.data.layouts.events import DAY, seconds_of
from glfa_jax.data.tables import Row, read_header, read_table
from glfa_jax.data.video import Part
from glfa_jax.data.windows import check_begin, end_of, window_of
from glfa_jax.files import is_fetched

_OPTIONS = re.compile(r",(onset|start|duration)=([^,=]*)")


@dataclass(frozen=True)
class Shown:
    """trials: clips of one length. videos: of those whose file is there, by name of the clip."""

    trials: tuple[Trial, ...]
    videos: Mapping[str, Part] = field(default_factory=dict)


def showing_of(text: str) -> Showing:
    """A film as a command line states it: FILE[,onset=S][,start=S][,duration=S], in the words of
    `data.films.shown`. Raises DataError."""
    options = {key: _seconds(text, key, given) for key, given in _OPTIONS.findall(text)}
    film = _OPTIONS.sub("", text)
    if not film or re.search(r",\w+=", film):
        raise DataError(
            f"films: {text!r:.200}, must be FILE,onset=S,start=S,duration=S, of which all but FILE "
            "may be left out"
        )
    return replace(Showing(film, onset=0.0), **options)


def _seconds(text: str, key: str, given: str) -> float:
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    least = -DAY if key == "onset" else 0.0
    if not least <= value <= DAY or (key == "duration" and not value):
        raise DataError(
            f"films: {text!r:.200}: {key} must be a number of seconds, is {given!r:.50}"
        )
    return value


def by_events(
    path: Path, run: Run, *, volumes: int, seconds: float, stimuli: Path, notes: list[str]
) -> Shown:
    """A clip at every event of a table, or as many as fill it where it is longer.

    Only `onset` must be there. Where some rows name a `stim_file`, the others show nothing. The
    file is looked for in `stimuli`. volumes: of the run. Raises DataError.
    """
    header = read_header(path)
    columns = ["onset", *(name for name in ("duration", "stim_file") if name in header)]
    rows = read_table(path, columns=columns)
    named = [row for row in rows if row.get("stim_file", "") not in MISSING]
    trials: list[Trial] = []
    videos: dict[str, Part] = {}
    for number, row in enumerate(named or rows):
        if row["onset"] in MISSING:
            notes.append(f"{row.where}: onset is n/a, left out")
            continue
        name = row.stim_file if named else f"event {number + 1:03d}"
        onset = seconds_of(row, "onset", least=-DAY)
        whole = Showing(name, onset, 0.0, _duration(row, seconds))
        file = stimuli / name
        length = _length(file, notes) if named and is_fetched(file) else None
        for trial, part in _clips(whole, file, length=length, seconds=seconds, said=row.where):
            check_begin(run, trial, volumes)
            trials.append(trial)
            if part is not None:
                videos[trial.clip] = part
    if not trials:
        raise DataError(f"{path}: lists no events")
    return Shown(_in_order(trials), videos)


def _duration(row: Row, seconds: float) -> float:
    """A clip's where the table tells none, or less."""
    given = row.get("duration", "n/a")
    return seconds if given in MISSING else max(seconds, seconds_of(row, "duration", least=0.0))


def _length(path: Path, notes: list[str]) -> float | None:
    """Of a file that may be no video; that is noted."""
    try:
        return length_of(path)
    except DataError as error:
        notes.append(str(error))
        return None


def _clips(
    whole: Showing, path: Path, *, length: float | None, seconds: float, said: str
) -> Iterator[tuple[Trial, Part | None]]:
    """Of one event: itself, or the clips that fill it; length: of its file, where that is there."""
    if whole.duration < 2 * seconds - ROUNDING:
        as_shown = length is not None and abs(length - whole.duration) <= ROUNDED
        part = Part(path) if as_shown else Part(path, 0.0, seconds)
        yield (
            Trial(whole.film, whole.onset, seconds, 1),
            None if length is None or length < seconds - ROUNDED else part,
        )
        return
    if length is not None:
        whole = check_length(whole, path=path, length=length, said=said)
    for trial, begin in cut(whole, seconds=seconds):
        yield trial, None if length is None else Part(path, begin, seconds)


def by_films(
    films: Sequence[Showing],
    run: Run,
    *,
    volumes: int,
    seconds: float,
    stimuli: Path,
    notes: list[str],
) -> Shown:
    """The clips of films, which begin at multiples of `seconds` in the film.

    One whose file is not there, as named or in `stimuli`, is decoded all the same, to the end of
    the run where no duration is stated.
    """
    known: list[tuple[Showing, Path | None]] = []
    for film in films:
        name = Path(film.film).name
        check_begin(run, Trial(name, film.onset, 0.0, 1, name, film.onset), volumes)
        places = (Path(film.film), stimuli / film.film)
        path = next(filter(is_fetched, places), None)
        if path is None:
            notes.append(f"{film.film}: is not there, so what was shown is not shown beside")
            left = end_of(run, volumes) - film.onset
            whole = film if math.isfinite(film.duration) else replace(film, duration=left)
        else:
            length = length_of(path)
            whole = check_length(film, path=path, length=length, said="films")
        known.append((replace(whole, film=name), path))
    check_one_at_a_time([whole for whole, _ in known], said="films")
    trials: list[Trial] = []
    videos: dict[str, Part] = {}
    for whole, path in known:
        clips = cut(whole, seconds=seconds)
        if not clips:
            raise DataError(
                f"films: {whole.film} is shown for {whole.duration:g} s, less than a clip of "
                f"{seconds:g} s"
            )
        for trial, begin in clips:
            trials.append(trial)
            if path is not None:
                videos[trial.clip] = Part(path, begin, seconds)
    return Shown(_in_order(trials), videos)


def throughout(run: Run, *, volumes: int, seconds: float, lag: float, window: int) -> Shown:
    """One clip after the other over the whole run, of which nothing is known."""
    step = max(seconds, run.repetition_time)
    count = math.ceil(end_of(run, volumes) / step)
    trials = [Trial(f"{step * i:g} s", step * i, seconds, 1) for i in range(count)]
    options = {"lag": lag, "window": window, "volumes": volumes}
    return Shown(tuple(t for t in trials if window_of(run, t, **options) is not None))


def _in_order(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    return tuple(sorted(trials, key=lambda trial: trial.onset))
