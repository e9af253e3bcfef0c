"""One reader per on-disk layout; all yield the same `Study` of `Run` records."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxtyping import Float
from numpy import ndarray

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")


@dataclass(frozen=True)
class Trial:
    """One showing of a clip; onset and duration in seconds from the run's first volume."""

    clip: str
    onset: float
    duration: float
    repeat: int


@dataclass(frozen=True)
class Run:
    """One run of one subject.

    repetition_time: seconds. start_time: seconds from the clock of the trials to the moment that
        the first volume shows (half a repetition time after slice-timing correction to the middle).
    scans: the files of the time series: left and right hemisphere, or one with both.
    events: the file of the trials.
    files: every file the run is read from.
    load: gives the time series, (time, vertices) with the left hemisphere first; raises DataError
        where a file is damaged.
    """

    subject: str
    name: str
    split: Split
    repetition_time: float
    start_time: float
    trials: tuple[Trial, ...]
    scans: tuple[Path, ...]
    events: Path
    files: tuple[Path, ...]
    load: Callable[[], Float[ndarray, "time vertices"]]


@dataclass(frozen=True)
class Study:
    """Runs in the order of subject and run; `videos` and `captions` cover every clip shown."""

    runs: tuple[Run, ...]
    videos: Mapping[str, Path]
    captions: Mapping[str, str]
    files: tuple[Path, ...]
