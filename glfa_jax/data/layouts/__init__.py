"""One reader per on-disk layout, a file each that registers it; all yield the same `Study`."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jaxtyping import Float
from numpy import ndarray

from glfa_jax import config
from glfa_jax.data import DataError
from glfa_jax.data.missing import Missing
from glfa_jax.data.video import Part
from glfa_jax.registry import Registry

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")

Sides = tuple[Path, Path]  # files of the left and of the right hemisphere
Blocks = Iterator[Float[ndarray, "time values"]]


@dataclass(frozen=True)
class Trial:
    """One showing of a clip; onset and duration in seconds on the run's clock.

    film: that the clip is cut from, and since: when that began to be shown, for such clips.
    """

    clip: str
    onset: float
    duration: float
    repeat: int
    film: str | None = None
    since: float | None = None

    @property
    def begins(self) -> float:
        """When what is shown began, the clip itself or the film that it is cut from."""
        return self.onset if self.since is None else self.since


@dataclass(frozen=True)
class Run:
    """One run of one subject.

    repetition_time: seconds.
    start_time: seconds on the clock of the trials at which the first volume of `blocks` shows
        (after slice-timing correction to the middle, half a repetition time more than its begin).
    scans: the files of the time series: left and right hemisphere, or one with both.
    files: every file the run is read from, scans, sidecars and events.
    blocks: reads the time series, a few volumes at a time, volumes to drop left out; float32,
        values in the order that the layout's flat map takes. Raises DataError where a file is
        damaged. Must pickle, so that another process can call it.
    sides: number of values of each hemisphere, where the files tell.
    tail: volumes at the end of `blocks` that windows may reach but mean and spread leave out.
    dropped: volumes of the files before and after those of `blocks`.
    confounds: fMRIPrep's table of the run, with a row for every volume of the files; one of `files`
        only where the cleaning asks for it.
    film_end: seconds at which the last film ends, where nothing but its file says so: a run that
        goes on much longer shows another film.
    """

    subject: str
    name: str
    split: Split
    repetition_time: float
    start_time: float
    trials: tuple[Trial, ...]
    scans: tuple[Path, ...]
    files: tuple[Path, ...]
    blocks: Callable[[], Blocks]
    tail: int = 0
    sides: tuple[int, ...] = ()
    dropped: tuple[int, int] = (0, 0)
    confounds: Path | None = None
    film_end: float | None = None


@dataclass(frozen=True)
class Study:
    """Runs in the order of subject and run; `videos` and `captions` cover every clip shown.

    files: every file that the study is read from.
    notes: what is not as it should be and does no harm, a sentence each.
    anatomy: by subject, the files of maps of the anatomy by their names, where there are some.
    """

    runs: tuple[Run, ...]
    videos: Mapping[str, Part]
    captions: Mapping[str, str]
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    anatomy: Mapping[str, Mapping[str, Sides]] = field(default_factory=dict)


@dataclass
class Problems:
    """What of a study cannot be used: raised at once or, with `skip`, noted and gone on from.

    wordless: captions are still to be written, so that a clip without one is no problem.
    raised: what would have been noted. missing: what is not there, which is never raised: it was
    not downloaded.
    """

    skip: bool
    wordless: bool = False
    noted: list[str] = field(default_factory=list)
    raised: DataError | None = None
    missing: Missing = field(default_factory=Missing)

    def add(self, error: DataError) -> None:
        if not self.skip:
            self.raised = error
            raise error
        self.noted.append(str(error))


@dataclass(frozen=True)
class Layout:
    """How a kind of study lies on disk.

    name: as in `data.layout`.
    read: everything but the time series; what cannot be used goes to the problems.
    mask: of scans that are images of the flat cortex already, not values at vertices: the file in
        `data.root` that shows the region, unless `data.region.mask` names another.
    timed_by_events: trials come from tables, so that one beyond the end of its run is a mistake.
        Elsewhere every trial is known beforehand, and what a run broken off lacks is missing.
    clean: what its authors take out of the scans before they z-score them.
    finds_captions: whether it reads captions.tsv beside the clips without `data.captions`.
    divides: whether `data.split` and `data.films` are for it.
    """

    name: str
    read: Callable[[config.Data, Problems], Study]
    mask: str | None = None
    timed_by_events: bool = False
    clean: config.Cleaning = field(default_factory=config.Cleaning)
    finds_captions: bool = False
    divides: bool = False


LAYOUTS: Registry[Layout] = Registry(__name__, what="layout", error=DataError)


def layout_of(data: config.Data) -> Layout:
    """Raises DataError where there is none of the name in `data.layout`."""
    return LAYOUTS.named(data.layout, key="data.layout")


def cleaning_of(data: config.Data) -> config.Cleaning:
    """What is asked for, or else what the layout's authors do."""
    return layout_of(data).clean if data.clean is None else data.clean
