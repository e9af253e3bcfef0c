"""Which part of a study is for test, and how long films become clips."""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from glfa_jax.config.base import Rate, Section

ENTITY = re.compile(r"[A-Za-z]+-[^_]+")  # key-value of BIDS, a shell pattern as the value
STRETCH = re.compile(r"([0-9]+(?:\.[0-9]+)?%?)-([0-9]+(?:\.[0-9]+)?%?)?")


def _several(given: Any) -> Any:
    return (given,) if isinstance(given, str) else given


Patterns = Annotated[tuple[str, ...], BeforeValidator(_several), Field(min_length=1)]


class Split(Section):
    """Which runs, stimuli or stretches of films are for test, where `events.tsv` does not say.

    By run: BIDS entities such as `task-test*` or `ses-02_run-*`, all of which a run must have. By
    stimulus: names of files in `stimuli/`. By time: stretches of every film in seconds or per cent
    of it, such as `480-600`, `480-` or `80%-100%`. Values may be shell patterns.
    """

    by: Literal["run", "stimulus", "time"] = Field(
        default="run", description="what test and train name"
    )
    test: Patterns = Field(description="one or a list")
    train: Patterns | None = Field(
        default=None, description="all others if left out; what neither names is not used"
    )
    gap_seconds: Rate | None = Field(
        default=None,
        description="within a run, training clips so near to a test clip are left out; "
        "lag_seconds + window repetition times if left out",
    )

    @model_validator(mode="after")
    def _readable(self) -> "Split":
        for key in ("test", "train"):
            for text in getattr(self, key) or ():
                if self.by == "run":
                    check_runs(key, [text])
                elif self.by == "time":
                    _check_stretch(key, text)
        if self.by == "run" and self.gap_seconds is not None:
            raise ValueError("gap_seconds: has no use by run, where no run is divided")
        return self


def check_runs(key: str, patterns: Iterable[str]) -> None:
    """Raises ValueError for what names no BIDS entities."""
    for text in patterns:
        if not all(ENTITY.fullmatch(part) for part in text.split("_")):
            raise ValueError(
                f"{key}: must name runs by BIDS entities, such as task-test* or ses-02_run-*, got "
                f"{text!r:.100}"
            )


def _check_stretch(key: str, text: str) -> None:
    match = STRETCH.fullmatch(text)
    begin, end = match.groups() if match else ("", None)
    shares = [float(each[:-1]) for each in (begin, end) if each and each.endswith("%")]
    backwards = (
        end is not None
        and begin.endswith("%") == end.endswith("%")
        and float(begin.rstrip("%")) >= float(end.rstrip("%"))
    )
    if not match or backwards or max(shares, default=0) > 100:
        raise ValueError(
            f"{key}: must be a stretch of film from-to, in seconds or per cent, such as 480-600, "
            f"480- or 80%-100%, got {text!r:.100}"
        )


class Shown(Section):
    """A film that runs show, where no `events.tsv` says so."""

    runs: Patterns = Field(description="BIDS entities, as in split")
    film: str = Field(min_length=1, description="a file in stimuli/")
    onset: float = Field(default=0.0, description="seconds from the first volume of the scan")
    start: Rate = Field(default=0.0, description="seconds into the film at which it begins")
    duration: float | None = Field(
        default=None, gt=0, description="seconds; to the film's end if left out"
    )

    @model_validator(mode="after")
    def _readable(self) -> "Shown":
        check_runs("runs", self.runs)
        if PurePosixPath(self.film).is_absolute() or ".." in PurePosixPath(self.film).parts:
            raise ValueError(f"film: must name a file inside stimuli/, got {self.film!r:.100}")
        return self


class Films(Section):
    """Runs show long films, which are cut into clips."""

    seconds: float = Field(
        default=2.0, gt=0, description="length of a clip; clips begin at multiples of it"
    )
    shown: tuple[Shown, ...] = Field(
        default=(), description="which runs show what, for those without events"
    )
