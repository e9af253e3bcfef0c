"""The set of Fudan University, WebVid and FCVID parts: TR 0.8 s, images of the flat cortex.

processed-fmri/sub-0001/hdf5/sub-0001_task-video_run-2_space-fsLR_den-91k_bold.dtseries.h5
                                        key images (T, 1023, 2514)
stimuli/condition/run2.txt              an integer video id a line, 200 a run
stimuli/vid2name.npy                    pickled dict {id: caption}
stimuli/1234.mp4                        8 s

Runs of subject 1 show all 200 clips of a list. Those of the others show 50: run q a quarter of list
(q - 1) // 4 + 1. A clip of 8 s gives two samples of 4 s, `1234_0s` and `1234_4s`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from glfa_jax import config
from glfa_jax.config import RunNumbers
from glfa_jax.data import DataError
from glfa_jax.data.captions import read_captions
from glfa_jax.data.layouts import LAYOUTS, SPLITS, Layout, Problems, Run, Split, Study, Trial
from glfa_jax.data.layouts.clips import with_clips
from glfa_jax.data.layouts.vid2name import read_vid2name
from glfa_jax.data.readers import hdf5, hdf5_shape, trimmed
from glfa_jax.data.video import Part
from glfa_jax.files import is_fetched, read_text

REPETITION_TIME = 0.8
TRIAL_VOLUMES = 13  # 8 s of video, 2.4 s of blank
HALF_VOLUMES = 5  # a sample: half a clip
HALF_SECONDS = 4.0
DROPPED = 3  # volumes before the first trial
QUARTERS = 4  # runs that share a list, in all subjects but the first
WHOLE = "1"  # the subject whose runs show whole lists
KEY = "images"
ID = re.compile("[0-9]{1,18}")  # of a video; Python reads no integers of thousands of digits

# Of the WebVid part, where `data.runs` is left out.
_FIRST = RunNumbers(train=(2, 3, 5, 6, 7), test=(1, 4))
_OTHERS = RunNumbers(train=(*range(5, 13), *range(17, 29)), test=(*range(1, 5), *range(13, 17)))
RUNS = {WHOLE: _FIRST, **dict.fromkeys(("2", "3", "4", "5"), _OTHERS)}


@dataclass(frozen=True)
class _Planned:
    """A run as it should be on disk; trials with the repeat that each clip has reached."""

    subject: str
    number: int
    split: Split
    path: Path
    condition: Path
    videos: tuple[int, ...]
    trials: tuple[Trial, ...]


def read_study(data: config.Data, problems: Problems) -> Study:
    """Everything but the time series; what cannot be used goes to `problems`."""
    stimuli = data.root / "stimuli"
    own: dict[str, str] = {}  # of samples, where the table names them
    if data.captions is None:
        captions_file = stimuli / "vid2name.npy"
        names = read_vid2name(captions_file)
    else:  # samples by their names, or both of a clip by the name of its file
        captions_file = data.captions
        names: dict[int, str] = {}
        for name, caption in read_captions(captions_file, failed=problems.add).items():
            stem = Path(name).stem
            if not ID.fullmatch(stem):
                own[name] = caption
                continue
            if names.setdefault(video := int(stem), caption) != caption:
                problems.add(DataError(f"{captions_file}: video {video} has two captions"))
    runs, conditions = [], {}
    for subject in data.subjects:
        try:
            numbers = _numbers(data, subject)
            folder = _folder(data.root, subject)
        except DataError as error:
            problems.add(error)
            continue
        for split in SPLITS:
            planned = _plan(data.root, folder, subject, split, numbers, conditions, problems)
            runs += _present(planned, problems)
    shown = dict.fromkeys(trial.clip for run in runs for trial in run.trials)
    videos = {clip: _part(stimuli, clip) for clip in shown}
    return with_clips(
        runs,
        videos=videos,
        captions={clip: names[_id(clip)] for clip in shown if _id(clip) in names} | own,
        captions_file=captions_file,
        problems=problems,
    )


def _numbers(data: config.Data, subject: str) -> RunNumbers:
    known = RUNS if data.runs is None else data.runs
    if subject not in known:
        raise DataError(
            f"data.runs: does not say which runs subject {subject} has, "
            f"{'left out it is' if data.runs is None else 'it is'} for {', '.join(known)}"
        )
    return known[subject]


def _folder(root: Path, subject: str) -> Path:
    if not subject.isdecimal():
        raise DataError(f"data.subjects: must be numbers for layout fudan, one is {subject}")
    folder = root / "processed-fmri" / f"sub-{int(subject):04d}" / "hdf5"
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; subject {subject} has no scans")
    return folder


def _plan(
    root: Path,
    folder: Path,
    subject: str,
    split: Split,
    numbers: RunNumbers,
    conditions: dict[Path, list[int]],
    problems: Problems,
) -> list[_Planned]:
    """All runs of a subject and split, whether their scans are there or not."""
    planned, showings = [], {}
    for number in getattr(numbers, split):
        whole = subject == WHOLE
        listed = number if whole else (number - 1) // QUARTERS + 1
        condition = root / "stimuli" / "condition" / f"run{listed}.txt"
        try:
            if condition not in conditions:
                conditions[condition] = _read_condition(condition)
            videos = conditions[condition]
        except DataError as error:
            problems.add(error)
            continue
        if not whole:
            size, quarter = len(videos) // QUARTERS, (number - 1) % QUARTERS
            videos = videos[size * quarter : size * (quarter + 1)]
        trials = []
        for place, video in enumerate(videos):
            showings[video] = repeat = showings.get(video, 0) + 1
            trials += _halves(video, place, repeat)
        scan = f"{folder.parent.name}_task-video_run-{number}_space-fsLR_den-91k_bold.dtseries.h5"
        planned.append(
            _Planned(
                *(subject, number, split, folder / scan, condition, tuple(videos), tuple(trials))
            )
        )
    return planned


def _halves(video: int, place: int, repeat: int) -> list[Trial]:
    return [
        Trial(
            clip=f"{video}_{HALF_SECONDS * half:g}s",
            onset=REPETITION_TIME * (TRIAL_VOLUMES * place + HALF_VOLUMES * half),
            duration=HALF_SECONDS,
            repeat=repeat,
        )
        for half in (0, 1)
    ]


def _id(clip: str) -> int:
    return int(clip.split("_")[0])


def _part(stimuli: Path, clip: str) -> Part:
    video, start = clip.removesuffix("s").split("_")
    return Part(stimuli / f"{video}.mp4", float(start), HALF_SECONDS)


def _read_condition(path: Path) -> list[int]:
    lines = read_text(path, error=DataError).split()
    for line in lines:
        if not ID.fullmatch(line):
            raise DataError(f"{path}: must hold an integer video id a line, one is {line!r:.50}")
    if not lines or len(lines) % QUARTERS:
        raise DataError(
            f"{path}: {len(lines)} video ids, must be a multiple of {QUARTERS}: subjects other "
            f"than {WHOLE} saw a quarter a run"
        )
    return [int(line) for line in lines]


def _present(planned: Sequence[_Planned], problems: Problems) -> list[Run]:
    """The runs whose scans are there."""
    runs = []
    for plan in planned:
        if not is_fetched(plan.path):
            problems.missing.run(plan.subject, f"run {plan.number}")
            continue
        try:
            runs.append(_run(plan))
        except DataError as error:
            problems.add(error)
    return runs


def _run(plan: _Planned) -> Run:
    _check_length(plan)
    return Run(
        subject=plan.subject,
        name=str(plan.number),
        split=plan.split,
        repetition_time=REPETITION_TIME,
        start_time=0.0,  # the first volume kept belongs to the begin of the first trial
        trials=plan.trials,
        scans=(plan.path,),
        files=(plan.path, plan.condition),
        blocks=partial(trimmed, partial(hdf5, plan.path, KEY), plan.path, DROPPED, 0),
        dropped=(DROPPED, 0),
    )


def _check_length(plan: _Planned) -> None:
    """A run may end early; one of quite another length shows other clips than we think."""
    shape = hdf5_shape(plan.path, KEY)
    wanted = DROPPED + TRIAL_VOLUMES * len(plan.videos)
    if len(shape) != 3 or not wanted / 2 < shape[0] < 2 * wanted:
        raise DataError(
            f"{plan.path}: {KEY!r} has shape {shape}, must be (time, height, width) with about "
            f"{wanted} volumes for the {len(plan.videos)} clips of {plan.condition.name}"
        )


LAYOUTS.register(Layout("fudan", read_study, mask="vc_roi.npz"))
