"""events.tsv of BIDS: which clip a run shows when."""

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median

from glfa_jax.data import DataError
from glfa_jax.data.captions import MISSING
from glfa_jax.data.layouts import SPLITS, Split, Trial
from glfa_jax.data.layouts.clips import on_disk
from glfa_jax.data.layouts.cutting import UNNUMBERED
from glfa_jax.data.tables import Row, read_header, read_table

COLUMNS = ("onset", "duration", "trial_type", "stim_file", "repeat")
DAY = 86_400.0  # seconds, longer than any run
MILLISECOND = 1e-3
ROUNDING = 0.02  # seconds by which trials may overlap: onsets and durations are rounded
# What Python's float takes besides (1_0, nan, other digits) is more often a slip than meant.
_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")

Timed = tuple[int, Trial]  # the line of a trial, and the trial


def read_events(
    path: Path,
    *,
    stimuli: Path,
    failed: Callable[[DataError], None],
    notes: list[str],
    divided: bool = False,
    films: bool = False,
    passed_over: Collection[str] = (),
) -> tuple[Split | None, tuple[Trial, ...]]:
    """The split of a run and its trials, in the order of their lines; without a column `repeat`
    these are `UNNUMBERED`.

    `failed` is called with rows that cannot be used, and may raise to stop; they are left out.
    divided: the split is told by something else, and every row with a stimulus is a trial.
    films: a duration that is n/a is infinite, to the film's end.
    passed_over: values of `trial_type`, where there is one, whose rows are no trials though they
        have a stimulus; for `divided`.
    """
    header = read_header(path)
    if "trial_type" not in header and not divided:
        raise DataError(
            f"{path}: has no column trial_type of train or test, its first line names "
            f"{', '.join(header) or 'none':.200}; add it, or let data.split say what is for test"
        )
    asked = not divided or (passed_over and "trial_type" in header)
    without = set() if asked else {"trial_type"}
    without |= set() if "repeat" in header else {"repeat"}
    columns = [name for name in COLUMNS if name not in without]
    rows: Sequence[Row] = read_table(path, columns=columns, failed=failed)
    split = None
    if divided:
        rows = [
            row
            for row in rows
            if row["stim_file"] not in MISSING
            and row.get("trial_type", "").casefold() not in passed_over
        ]
    else:
        split, rows = _of_one_split(path, rows, failed, notes)
    timeless = [row.line for row in rows if row["onset"] == "n/a"]
    if timeless:
        notes.append(f"{path}: {_lines(timeless)}: onset is n/a, left out")
    timed: list[Timed] = []
    for row in rows:
        if row["onset"] != "n/a":
            try:
                timed.append((row.line, _trial(row, stimuli)))
            except DataError as error:
                failed(error)
    timed = _apart(path, timed, failed, notes)
    if not timed:
        raise DataError(f"{path}: lists no trials{' with a stim_file' if divided else ''}")
    if films:
        return split, tuple(
            replace(trial, duration=math.inf) if math.isnan(trial.duration) else trial
            for _, trial in timed
        )
    return split, _with_durations(path, timed, notes)


def _of_one_split(
    path: Path, rows: Sequence[Row], failed: Callable[[DataError], None], notes: list[str]
) -> tuple[Split, list[Row]]:
    """The rows that show clips; those of other kinds, such as buttons pressed, are noted."""
    if not rows:
        raise DataError(f"{path}: lists no trials")
    kinds = Counter(row["trial_type"] for row in rows)
    splits: list[Split] = [split for split in SPLITS if split in kinds]
    if len(splits) != 1:
        raise DataError(
            f"{path}: trial_type must be train or test throughout, is {', '.join(kinds):.200}; or "
            "let data.split say what is for test"
        )
    kept = []
    for row in rows:
        kind = row["trial_type"]
        if kind == splits[0]:
            kept.append(row)
        elif kind.strip().casefold() in SPLITS:
            failed(DataError(f"{row.where}: trial_type must be {splits[0]}, is {kind!r:.50}"))
            del kinds[kind]
    others = ", ".join(f"{kind} ({kinds[kind]})" for kind in kinds if kind != splits[0])
    if others:
        notes.append(
            f"{path}: rows whose trial_type is neither train nor test are left out: {others:.200}"
        )
    return splits[0], kept


def _trial(row: Row, stimuli: Path) -> Trial:
    return Trial(
        clip=on_disk(stimuli, row.stim_file),
        onset=seconds_of(row, "onset", least=-DAY),
        duration=(
            math.nan if row["duration"] == "n/a" else seconds_of(row, "duration", least=MILLISECOND)
        ),
        repeat=_repeat(row),
    )


def _number(row: Row, column: str) -> float:
    """NaN for what is no number as tables have it."""
    return float(row[column]) if _NUMBER.fullmatch(row[column]) else math.nan


def seconds_of(row: Row, column: str, *, least: float) -> float:
    """A time in a table; raises DataError for what is none, or less than `least`."""
    value = _number(row, column)
    if not least <= value <= DAY:
        raise DataError(
            f"{row.where}: {column} must be a number of seconds from {least:g} to {DAY:g}, is "
            f"{row[column]!r:.50}"
        )
    return value


def _repeat(row: Row) -> int:
    if "repeat" not in row:
        return UNNUMBERED
    value = _number(row, "repeat")
    if not 0 <= value <= 1e6 or value != int(value):
        raise DataError(
            f"{row.where}: repeat must be a whole number >= 0, is {row['repeat']!r:.50}"
        )
    return int(value)


def _apart(
    path: Path, timed: Sequence[Timed], failed: Callable[[DataError], None], notes: list[str]
) -> list[Timed]:
    """Trials without those of one onset, whose windows would be the same; overlaps are noted."""
    order = sorted(timed, key=lambda each: each[1].onset)
    together: set[int] = set()
    for (line, trial), (other, later) in pairwise(order):
        if later.onset - trial.onset < MILLISECOND:
            together |= {line, other}
            failed(
                DataError(
                    f"{path}: {_lines(sorted((line, other)))}: two trials with one onset, "
                    f"{trial.onset:g} s; every trial needs its own"
                )
            )
    overlaps = []
    longest: Timed | None = None  # the trial that ends last of those that began
    for line, trial in (each for each in order if not math.isnan(each[1].duration)):
        if longest is not None:
            shared = longest[1].onset + longest[1].duration - trial.onset
            if shared > ROUNDING and line not in together:
                overlaps.append((longest[0], line, shared))
        if longest is None or trial.onset + trial.duration > longest[1].onset + longest[1].duration:
            longest = (line, trial)
    if overlaps:
        line, other, shared = overlaps[0]
        more = f", and {len(overlaps) - 1} more such pairs" if overlaps[1:] else ""
        notes.append(
            f"{path}: {_lines(sorted((line, other)))}: the trials overlap by {shared:g} s{more}"
        )
    return [each for each in timed if each[0] not in together]


def _with_durations(path: Path, timed: Sequence[Timed], notes: list[str]) -> tuple[Trial, ...]:
    """BIDS lets a duration be n/a: the usual one of the file, else the usual time to the next."""
    trials = tuple(trial for _, trial in timed)
    without = [line for line, trial in timed if math.isnan(trial.duration)]
    if not without:
        return trials
    onsets = sorted(trial.onset for trial in trials)
    known = [trial.duration for trial in trials if not math.isnan(trial.duration)]
    source = "the median of the others" if known else "the median time to the next onset"
    known = known or [later - onset for onset, later in pairwise(onsets)]
    if not known:
        raise DataError(f"{path}: line {without[0]}: duration must be a number, is 'n/a'")
    usual = median(known)
    notes.append(f"{path}: {_lines(without)}: duration is n/a, taken as {usual:g} s, {source}")
    return tuple(
        replace(trial, duration=usual) if math.isnan(trial.duration) else trial for trial in trials
    )


def _lines(lines: Sequence[int]) -> str:
    """A few of the lines, in words."""
    if len(lines) == 1:
        return f"line {lines[0]}"
    if len(lines) <= 3:
        return f"lines {', '.join(map(str, lines[:-1]))} and {lines[-1]}"
    return f"lines {lines[0]}, {lines[1]} and {len(lines) - 2} more"
