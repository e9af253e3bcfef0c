"""`data.split`: which part of a study each run and clip belongs to."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from glfa_jax import config
from glfa_jax.data import DataError
from glfa_jax.data.layouts import SPLITS, Run, Split, Trial
from glfa_jax.data.layouts.clips import composed
from glfa_jax.data.layouts.cutting import FEWEST, ROUNDING, apart, divide
from glfa_jax.data.layouts.naming import Name
from glfa_jax.data.missing import listed
from glfa_jax.data.video import Part


class Division:
    """Divides one run after another, and knows in the end what of `data.split` was in vain."""

    def __init__(
        self,
        split: config.Split,
        *,
        lag: float,
        window: int,
        length: Callable[[str], float] | None = None,
    ):
        """length: of a film by its name, seconds; needed by time."""
        self._split, self._lag, self._window, self._length = split, lag, window, length
        self._entries = [(part, text) for part in SPLITS for text in getattr(split, part) or ()]
        self._used: set[tuple[str, str]] = set()
        self._neither: dict[str, None] = {}
        self._near = 0  # training clips
        self._cut_off: list[str] = []  # parts of runs, in words

    def parts(
        self,
        run: Run,
        name: Name,
        *,
        videos: dict[str, Part],
        volumes: Callable[[], int],
    ) -> list[Run]:
        """The run, whole or in stretches, with its parts; none where it belongs to neither.

        name: of its scan. videos: the part of a film that each clip is. volumes: counts those of
            the run, asked only where it is divided.
        """
        who = f"sub-{run.subject} run {run.name}"
        if self._split.by == "run":
            split = self._one(who, [entry for entry in self._entries if name.fits(entry[1])])
            return [] if split is None else [replace(run, split=split)]
        split_of = self._of_stimulus if self._split.by == "stimulus" else self._of_stretch
        labelled: list[tuple[Trial, Split]] = []
        for trial in run.trials:
            if (part := split_of(trial, videos[trial.clip])) is not None:
                labelled.append((trial, part))
        if not labelled:
            return []
        splits = {split for _, split in labelled}
        if len(splits) == 1:
            return [replace(run, split=splits.pop(), trials=tuple(t for t, _ in labelled))]
        gap = self._split.gap_seconds
        if gap is None:
            # A clip begins only when the last window before it has ended.
            gap = self._lag + self._window * run.repetition_time
        timing = {"lag": self._lag, "window": self._window}
        kept = apart(run, labelled, gap=gap, **timing)
        self._near += len(labelled) - len(kept)
        made = divide(run, kept, volumes=volumes(), **timing)
        for split in {split for _, split in kept} - {each.split for each in made}:
            count = sum(other == split for _, other in kept)
            self._cut_off.append(
                f"{who}: its scan holds less than {FEWEST} volumes of what is for {split} there, "
                f"{count} clips are left out"
            )
        return made

    def in_vain(self) -> Iterator[DataError]:
        """A sentence for each entry that nothing fits."""
        what = {"run": "run", "stimulus": "stimulus that is shown", "time": "clip of any film"}
        for part, text in self._entries:
            if (part, text) not in self._used:
                yield DataError(f"data.split.{part}: {text!r} fits no {what[self._split.by]}")

    def notes(self) -> Iterator[str]:
        yield from self._cut_off
        if self._neither:
            yield f"in neither train nor test of data.split, left out: {listed(self._neither)}"
        if self._near:
            yield (
                f"training clips too near to a test clip of their run are left out, {self._near} "
                "of them (data.split.gap_seconds)"
            )

    def _of_stimulus(self, trial: Trial, _: Part) -> Split | None:
        name = composed(trial.film or trial.clip)
        fitting = [each for each in self._entries if fnmatchcase(name, composed(each[1]))]
        return self._one(name, fitting)

    def _of_stretch(self, trial: Trial, part: Part) -> Split | None:
        """By what of its film a clip shows; none where it lies across a limit."""
        assert trial.film is not None
        assert self._length is not None
        clip = part.start, part.start + trial.duration
        ends = {each: _stretch(each[1], self._length(trial.film)) for each in self._entries}
        if any(_overlap(clip, each) and not _within(clip, each) for each in ends.values()):
            return None
        inside = [each for each, limits in ends.items() if _within(clip, limits)]
        return self._one(trial.clip, inside)

    def _one(self, name: str, fitting: Sequence[tuple[str, str]]) -> Split | None:
        """The part that these entries name, the rest's without any."""
        self._used |= {*fitting}
        parts = {part: text for part, text in fitting}
        if len(parts) > 1:
            raise DataError(
                f"{name}: belongs to both parts of data.split, to train by {parts['train']!r} and "
                f"to test by {parts['test']!r}"
            )
        if not parts and self._split.train is not None:
            self._neither[name] = None
            return None
        return "test" if "test" in parts else "train"


def _stretch(text: str, length: float) -> tuple[float, float]:
    """From and to, seconds of a film."""
    begin, _, end = text.partition("-")
    return _seconds(begin, length), _seconds(end, length) if end else math.inf


def _seconds(text: str, length: float) -> float:
    return float(text[:-1]) / 100 * length if text.endswith("%") else float(text)


def _within(clip: tuple[float, float], limits: tuple[float, float]) -> bool:
    return limits[0] - ROUNDING <= clip[0] and clip[1] <= limits[1] + ROUNDING


def _overlap(clip: tuple[float, float], limits: tuple[float, float]) -> bool:
    return clip[0] < limits[1] - ROUNDING and limits[0] + ROUNDING < clip[1]
