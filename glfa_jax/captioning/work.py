"""Captions for every clip of a study, by a captioner that sees some of its frames.

What is finished lies in a journal beside the table, a line a clip, until all of it is: a run that
was killed goes on from there.
"""

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from numpy import ndarray
from tqdm import tqdm

from glfa_jax.captioning import table
from glfa_jax.captioning.table import Entry
from glfa_jax.data import DataError
from glfa_jax.data.captions import MISSING
from glfa_jax.data.layouts import Problems, Study
from glfa_jax.data.majority import majority
from glfa_jax.data.pieces import digest
from glfa_jax.data.video import Part, read_parts, resize
from glfa_jax.files import remove, writing
from glfa_jax.lock import only_one

Images = Sequence[UInt8[ndarray, "h w 3"]]
Clips = Sequence[tuple[str, Part]]


@dataclass(frozen=True)
class Written:
    """The table as it was written.

    entries: of the study's clips. others: of clips that are not in the study. made: clips captioned
    now. kept: those that were there.
    """

    entries: dict[str, Entry]
    others: dict[str, Entry]
    made: int
    kept: int


def place_of(study: Study) -> Path:
    """Where the table of a study lies: beside the clips, as BIDS has it."""
    folders = {_stimuli(clip, part.path) for clip, part in study.videos.items()}
    if not folders:
        raise DataError("the study has no clip to caption")
    first, *others = folders
    above = (first, *first.parents)
    shared = (place for place in above if all(place in (o, *o.parents) for o in others))
    return next(shared, first) / "captions.tsv"


def _stimuli(clip: str, path: Path) -> Path:
    """The folder from which a clip's name, or that of the film it is cut from, leads to its file:
    `movies/a.mp4`, `movies/a.mp4/000`. Beside the file where names do not lead there."""
    whole, film = path.as_posix(), clip.rpartition("/")[0]
    for name in filter(None, (clip, film)):
        if whole.endswith(f"/{name}"):
            return Path(whole.removesuffix(f"/{name}"))
    return path.parent


def caption(
    study: Study,
    target: Path,
    captioner: Callable[[Images], list[str]],
    *,
    recipe: str,
    frames: int,
    batch: int,
    problems: Problems,
    progress: bool = True,
) -> Written:
    """Writes the table of all clips of `study`; rows that a person wrote or checked stay.

    recipe: model and settings in words, which every row gets; rows of another one are made anew.
    frames: of each clip, spread over it. batch: frames at a time.
    """
    scratch = target.with_name(f".{target.name}.scratch")
    with only_one(scratch):
        known = table.read(target)
        kept = {
            clip for clip in study.videos if clip in known and table.is_kept(known[clip], recipe)
        }
        wanted = {clip: part for clip, part in study.videos.items() if clip not in kept}
        journal = _Journal(scratch / "captions.jsonl", recipe, frames)
        done = journal.read(wanted)
        left = [(clip, part) for clip, part in wanted.items() if clip not in done]
        with tqdm(total=len(wanted), initial=len(done), disable=not progress, unit="clip") as bar:
            for clip, found in _captions(left, captioner, frames, batch, problems):
                journal.add(clip, wanted[clip], found)
                done[clip] = found
                bar.update()
        new = dict(_rows(study, done, recipe, problems))
        # One that could not be written anew keeps the row that it had.
        rows = {clip: new.get(clip, known.get(clip)) for clip in study.videos}
        entries = {clip: row for clip, row in rows.items() if row is not None}
        others = {clip: row for clip, row in known.items() if clip not in rows}
        table.write(target, {**entries, **others})
        remove(scratch)
    return Written(entries, others, len(new), len(kept))


def _rows(
    study: Study, done: Mapping[str, list[str]], recipe: str, problems: Problems
) -> Iterator[tuple[str, Entry]]:
    for clip in study.videos:
        if clip not in done:
            continue
        words, votes = majority([c if c not in MISSING else "" for c in done[clip]])
        if words:
            yield clip, table.made(clip, words, votes, done[clip], recipe)
        else:
            problems.add(DataError(f"clip {clip}: the captioner says nothing about its frames"))


def _captions(
    clips: Clips,
    captioner: Callable[[Images], list[str]],
    frames: int,
    batch: int,
    problems: Problems,
) -> Iterator[tuple[str, list[str]]]:
    """The captions of every clip's frames; no more frames are in memory than a batch and a clip."""
    names: list[str] = []  # of clips not all of whose captions are there
    images: list[Any] = []
    written: list[str] = []
    for clip, shown in _frames(clips, frames=frames, problems=problems):
        names.append(clip)
        images.extend(shown)
        while len(images) >= batch:
            written += captioner(images[:batch])
            del images[:batch]
        while len(written) >= frames:
            yield names.pop(0), written[:frames]
            del written[:frames]
    if images:
        written += captioner(images)
    for number, clip in enumerate(names):
        yield clip, written[frames * number : frames * (number + 1)]


def _frames(
    clips: Clips, *, frames: int, problems: Problems
) -> Generator[tuple[str, UInt8[ndarray, "f h w 3"]], None, None]:
    """The frames of each clip, of their own size, file after file; what cannot be read goes to
    `problems`."""
    by_file = sorted(clips, key=lambda clip: (str(clip[1].path), clip[1].start))
    for path, group in groupby(by_file, key=lambda clip: clip[1].path):
        names, parts = zip(*group, strict=True)
        reader = read_parts(path, parts, frames=frames, resolution=None)
        for number, clip in enumerate(names):
            try:
                shown = next(reader)
            except DataError as error:
                if parts[number].duration is not None:  # the file's name does not say which clips
                    lost = len(names) - number
                    error = DataError(f"{error}; clips that cannot be read: {lost}, from {clip} on")
                problems.add(error)
                break
            yield clip, shown


def middle_frames(
    study: Study, *, widest: int, progress: bool = True
) -> Iterator[tuple[str, UInt8[ndarray, "h w 3"]]]:
    """The middle frame, at most `widest` pixels wide, of every clip that can be read; why others
    cannot is said when they are captioned."""
    clips, quiet = list(study.videos.items()), Problems(skip=True)
    with tqdm(total=len(clips), disable=not progress, unit="clip", desc="page") as bar:
        for clip, frames in _frames(clips, frames=1, problems=quiet):
            height, width = frames.shape[1:3]
            narrow = min(width, widest)
            size = (max(1, round(height * narrow / width)), narrow)
            yield clip, resize(frames, resolution=size)[0]
            bar.update()


class _Journal:
    """What was captioned so far, a line a clip; one that was cut off counts for none."""

    def __init__(self, path: Path, recipe: str, frames: int):
        self._path, self._recipe, self._frames = path, recipe, frames

    def _key(self, clip: str, part: Part) -> str:
        return digest((part.path,), clip, part.start, part.duration, self._recipe)

    def read(self, wanted: Mapping[str, Part]) -> dict[str, list[str]]:
        """The captions of those of the clips that are as they were, and of this recipe."""
        if not self._path.is_file():
            return {}
        keys = {self._key(clip, part): clip for clip, part in wanted.items()}
        done = {}
        for line in self._path.read_text("utf-8", errors="replace").splitlines():
            with suppress(ValueError, TypeError):  # cut off
                key, captions = json.loads(line)
                if key in keys and len(captions) == self._frames:
                    done[keys[key]] = captions
        return done

    def add(self, clip: str, part: Part, captions: list[str]) -> None:
        # On a line of its own even after one that was cut off.
        line = "\n" + json.dumps([self._key(clip, part), captions]) + "\n"
        with writing(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(line)
