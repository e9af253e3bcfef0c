"""Captions of clips, or of films by their times, of which each clip gets one."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from glfa_jax.data import DataError
from glfa_jax.data.captions import MISSING, read_captions
from glfa_jax.data.layouts.clips import composed
from glfa_jax.data.layouts.cutting import length_of
from glfa_jax.data.layouts.events import MILLISECOND, seconds_of
from glfa_jax.data.tables import read_header, read_table
from glfa_jax.data.video import Part
from glfa_jax.files import is_fetched

Timed = tuple[float, float, str]  # from and to, seconds of a film, and what is seen then


def captions_of(
    videos: Mapping[str, Part], path: Path, stimuli: Path, *, failed: Callable[[DataError], None]
) -> dict[str, str]:
    """The table at `path` as a mapping from clip to caption.

    With a column `onset` it describes films: a clip has the caption that holds for most of it, all
    its stretches together, and the earlier of two that hold as long. One without duration holds
    until the next begins. `failed` is called with rows and videos that cannot be used.
    """
    if "onset" not in read_header(path):
        return read_captions(path, failed=failed)
    films = _read(path, failed)
    found = {}
    for clip, part in videos.items():
        timed = films.get(composed(part.path.relative_to(stimuli).as_posix()))
        if timed is None:
            continue
        try:
            end = _end_of(part)
        except DataError as error:
            failed(error)
            continue
        seconds: dict[str, float] = {}  # by caption, in the order of their begins
        for begin, until, caption in timed:
            if (shared := min(until, end) - max(begin, part.start)) > 0:
                seconds[caption] = seconds.get(caption, 0.0) + shared
        if seconds:
            most = max(seconds.values()) - MILLISECOND  # rounding must not decide
            found[clip] = next(caption for caption, held in seconds.items() if held >= most)
    return found


def _end_of(part: Part) -> float:
    """Seconds in its file; of one that is not there nothing is shown."""
    if part.duration is not None:
        return part.start + part.duration
    return length_of(part.path) if is_fetched(part.path) else part.start


def _read(path: Path, failed: Callable[[DataError], None]) -> dict[str, list[Timed]]:
    """By film, in the order of their begins."""
    columns = ["stim_file", "onset", "caption"]
    lasts = "duration" in read_header(path)
    films: dict[str, list[Timed]] = {}
    for row in read_table(path, columns=[*columns, *["duration"] * lasts], failed=failed):
        try:
            begin, caption = seconds_of(row, "onset", least=0), row["caption"].strip()
            if caption in MISSING:
                raise DataError(f"{row.where}: has an empty caption, {caption!r}")
            known = lasts and row["duration"] != "n/a"
            duration = seconds_of(row, "duration", least=MILLISECOND) if known else math.inf
            film = films.setdefault(composed(row.stim_file), [])
        except DataError as error:
            failed(error)
        else:
            film.append((begin, begin + duration, caption))
    return {film: _until_the_next(sorted(timed)) for film, timed in films.items()}


def _until_the_next(timed: list[Timed]) -> list[Timed]:
    nexts = [begin for begin, *_ in timed[1:]] + [math.inf]
    return [
        (begin, later if math.isinf(end) else end, caption)
        for (begin, end, caption), later in zip(timed, nexts, strict=True)
    ]
