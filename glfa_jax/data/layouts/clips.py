"""What every layout does with its clips: each needs a video file and a caption."""

import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from glfa_jax.data import DataError
from glfa_jax.data.layouts import Problems, Run, Study
from glfa_jax.data.video import Part
from glfa_jax.files import is_fetched


def with_clips(
    runs: Sequence[Run],
    *,
    videos: Mapping[str, Part],
    captions: Mapping[str, str],
    captions_file: Path,
    problems: Problems,
    files: Sequence[Path] = (),
    notes: Sequence[str] = (),
) -> Study:
    """The study of `runs`. A clip without caption is a problem, one without video file is missing
    like others of a partial download; both are left out.

    Where captions are still to be written, a clip without one has an empty one.

    videos, captions: at least of the clips shown; files: what was read besides runs, videos and
    `captions_file`.
    """
    shown = dict.fromkeys(trial.clip for run in runs for trial in run.trials)
    captions = _spelled(captions, shown)
    there: dict[Path, bool] = {}
    usable: list[str] = []
    wordless: list[str] = []
    for clip in shown:
        path = videos[clip].path
        if path not in there:
            there[path] = is_fetched(path)
        if not there[path]:
            problems.missing.video(path)
        elif clip not in captions and not problems.wordless:
            wordless.append(clip)
        else:
            usable.append(clip)
    if there and not any(there.values()):
        first = next(iter(there))
        raise DataError(
            f"{first}: no such video file, nor is any of the {len(there)} there that are shown"
        )
    if wordless:
        more = f" and {len(wordless) - 1} more" if wordless[1:] else ""
        problems.add(DataError(f"{captions_file}: has no caption for clip {wordless[0]}{more}"))
    if len(usable) < len(shown):
        kept = set(usable)
        trials = [tuple(trial for trial in run.trials if trial.clip in kept) for run in runs]
        runs = [replace(run, trials=left) for run, left in zip(runs, trials, strict=True) if left]
    read = [*(file for run in runs for file in run.files), *(videos[clip].path for clip in usable)]
    return Study(
        runs=tuple(runs),
        videos={clip: videos[clip] for clip in usable},
        captions={clip: captions.get(clip, "") for clip in usable},
        files=tuple(dict.fromkeys([*read, *files, captions_file])),
        notes=tuple(notes),
    )


def _spelled(captions: Mapping[str, str], clips: Iterable[str]) -> dict[str, str]:
    """Captions of `clips`, also of those that are encoded in another way in the table."""
    alike: dict[str, list[str]] = {}
    for name in captions:
        alike.setdefault(composed(name), []).append(name)
    found = {clip: alike.get(composed(clip), []) for clip in clips}
    return {
        clip: captions[clip if clip in captions else names[0]]
        for clip, names in found.items()
        if clip in captions or len(names) == 1
    }


def on_disk(folder: Path, clip: str) -> str:
    """The clip's name as the disk has it, where only the encoding of accents differs.

    Names of which there are two are left alone.
    """
    if clip.isascii():
        return clip
    place = folder
    for part in clip.split("/"):
        if not os.path.lexists(place / part) and os.path.isdir(place):
            alike = [name for name in os.listdir(place) if composed(name) == composed(part)]
            part = alike[0] if len(alike) == 1 else part
        place = place / part
    return place.relative_to(folder).as_posix()


def composed(name: str) -> str:
    """A name with letters and their accents in one; macOS takes them apart."""
    return unicodedata.normalize("NFC", name)
