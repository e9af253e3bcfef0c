"""Captions of clips, or of films by their times, of which each clip gets one."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from glfa_jax.data import DataError
from glfa_jax.data.captions import MISSING, read_captions
from glfa_jax.data.layouts.clips import composed
from glfa_jax.data.layouts.events import MILLISECOND, seconds_of
from glfa_jax.data.tables import read_header, read_table
from glfa_jax.data.video import Part

Timed = tuple[float, float, str]  # from and to, seconds of a film, and what is seen then


def captions_of(
    videos: Mapping[str, Part], path: Path, stimuli: Path, *, failed: Callable[[DataError], None]
) -> dict[str, str]:
    """The table at `path` as a mapping from clip to caption.

    With a column `onset` it describes films: a clip has the caption that holds for most of it. One
    without duration holds until the next begins. `failed` is called with rows that cannot be used.
    """
    if "onset" not in read_header(path):
        return read_captions(path, failed=failed)
    films = _read(path, failed)
    found = {}
    for clip, part in videos.items():
        timed = films.get(composed(part.path.relative_to(stimuli).as_posix()))
        if timed is None:
            continue
        begins, ends = (np.array([each[i] for each in timed]) for i in (0, 1))
        end = math.inf if part.duration is None else part.start + part.duration
        shared = np.minimum(ends, end) - np.maximum(begins, part.start)
        if shared.max() > 0:
            found[clip] = timed[int(shared.argmax())][2]
    return found


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
