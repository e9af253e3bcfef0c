"""What every layout does with its clips: each needs a video file and a caption."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from glfa_jax.data import DataError
from glfa_jax.data.layouts import Problems, Run, Study
from glfa_jax.data.video import Part


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
    """The study of `runs`; a clip without video file or caption is a problem and is left out.

    videos, captions: at least of the clips shown; files: what was read besides runs, videos and
    `captions_file`.
    """
    shown = dict.fromkeys(trial.clip for run in runs for trial in run.trials)
    missing: set[Path] = set()
    usable: list[str] = []
    wordless: list[str] = []
    for clip in shown:
        path = videos[clip].path
        if path in missing:
            continue
        if not path.is_file():
            missing.add(path)  # said once, however many clips it holds
            problems.add(DataError(f"{path}: no such video file, though clip {clip} is shown"))
        elif clip not in captions:
            wordless.append(clip)
        else:
            usable.append(clip)
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
        captions={clip: captions[clip] for clip in usable},
        files=tuple(dict.fromkeys([*read, *files, captions_file])),
        notes=tuple(notes),
    )
