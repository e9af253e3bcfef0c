"""Which windows of which runs make which samples: no file is read here."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from glfa_jax import config
from glfa_jax.data import DataError
from glfa_jax.data.layouts import SPLITS, Problems, Run, Split, cleaning_of, layout_of
from glfa_jax.data.signals import Signal
from glfa_jax.data.timing import TIME_TOLERANCE
from glfa_jax.data.windows import check_begin, end_of, window_of

# Seconds that a run goes on after its film: the response to the film's end is waited for.
REST = 30.0
Key = tuple[str, int]  # clip and repeat; repeat -1 stands for the average over repeats


@dataclass(frozen=True)
class Window:
    """A showing of a clip: `first` is the volume, in the run's signal, where its window begins.

    censored: share of its volumes that were interpolated.
    """

    signal: Signal
    first: int
    repeat: int
    censored: float = 0.0


@dataclass(frozen=True)
class Cut:
    """A run and what was cut from it; windows of a clip are by its key; missing: trials."""

    run: Run
    signal: Signal
    windows: tuple[tuple[Key, Window | None], ...]

    @property
    def missing(self) -> int:
        return sum(window is None for _, window in self.windows)


@dataclass(frozen=True)
class Plan:
    """All samples of all subjects, and where they come from."""

    subjects: tuple[str, ...]
    cuts: tuple[Cut, ...]
    keys: dict[Split, list[Key]]
    shown: dict[tuple[str, Split], dict[Key, list[Window]]] = field(repr=False)

    def of(self, subject: str, split: Split) -> list[Cut]:
        return [cut for cut in self.cuts if (cut.run.subject, cut.run.split) == (subject, split)]

    def repeats(self, subject: str) -> int:
        return max((len(windows) for windows in self.shown[subject, "test"].values()), default=0)


def same_repetition_time(runs: Sequence[Run], problems: Problems) -> list[Run]:
    """The runs that have the repetition time of most."""
    if not runs:
        raise DataError("no run of the study can be used")
    usual = Counter(run.repetition_time for run in runs).most_common(1)[0][0]
    example = next(run for run in runs if run.repetition_time == usual)
    kept = []
    for run in runs:
        if abs(run.repetition_time - usual) <= TIME_TOLERANCE:
            kept.append(run)
            continue
        problems.add(
            DataError(
                f"{run.scans[0]}: repetition time {run.repetition_time} s, but {usual} s in "
                f"{example.scans[0]}"
            )
        )
    return kept


def without_shared_clips(runs: Sequence[Run], problems: Problems) -> list[Run]:
    """Clips of test runs are never in train runs, else their answers would be trained on."""
    seen: dict[Split, set[str]] = {
        split: {trial.clip for run in runs if run.split == split for trial in run.trials}
        for split in SPLITS
    }
    shared = seen["train"] & seen["test"]
    if not shared:
        return list(runs)
    problems.add(
        DataError(
            f"clip {min(shared)} is shown in train and in test runs (of {len(shared)} such "
            "clips); a clip must be in one split only"
        )
    )
    problems.noted.append(f"{len(shared)} clips of test runs are left out of training")
    return [
        replace(run, trials=tuple(t for t in run.trials if t.clip not in shared))
        if run.split == "train"
        else run
        for run in runs
    ]


def plan(
    runs: Iterable[tuple[Run, Signal]],
    *,
    data: config.Data,
    unreadable: Mapping[str, str],
    problems: Problems,
) -> Plan:
    """Cuts every run; leaves out clips whose video is `unreadable`."""
    most = cleaning_of(data).most_censored
    cuts = []
    for run, signal in runs:
        try:
            cuts.append(cut := _cut(run, signal, data, unreadable))
            problems.noted += _sharing(cut)
        except DataError as error:
            problems.add(error)
    subjects: list[str] = []
    shown: dict[tuple[str, Split], dict[Key, list[Window]]] = {}
    for subject in data.subjects:
        for split in SPLITS:
            shown[subject, split] = _gather(cuts, subject, split, problems)
            problems.noted += _uncensor(shown[subject, split], subject, split, most)
        if any(shown[subject, "train"].values()):
            subjects.append(subject)
        else:
            problems.add(DataError(f"sub-{subject}: has no complete train sample, is left out"))
    if not subjects:
        raise DataError("no usable subject is left: none has a complete train sample")
    cuts = [cut for cut in cuts if cut.run.subject in subjects]
    keys: dict[Split, list[Key]] = {split: _keys(cuts, split) for split in SPLITS}
    return Plan(tuple(subjects), tuple(cuts), keys, shown)


def _cut(run: Run, signal: Signal, data: config.Data, unreadable: Mapping[str, str]) -> Cut:
    who = f"sub-{run.subject} run {run.name}"
    if signal.volumes < data.window:
        raise DataError(f"{who}: {signal.volumes} volumes, a window needs {data.window}")
    _check_film(run, signal.volumes)
    windows: list[tuple[Key, Window | None]] = []
    from_tables = layout_of(data).timed_by_events
    for trial in run.trials:
        if trial.clip in unreadable:
            continue
        key = (trial.clip, trial.repeat if run.split == "train" else -1)
        if from_tables:
            check_begin(run, trial, signal.volumes)
        first = window_of(
            run, trial, lag=data.lag_seconds, window=data.window, volumes=signal.volumes
        )
        if first is None:
            windows.append((key, None))
        else:
            censored = signal.censored_share(first, data.window)
            windows.append((key, Window(signal, first, trial.repeat, censored)))
    return Cut(run, signal, tuple(windows))


def _check_film(run: Run, volumes: int) -> None:
    """Raises DataError where a run goes on after a film as if it showed another one."""
    end = end_of(run, volumes) + run.dropped[1] * run.repetition_time
    if run.film_end is not None and end > run.film_end + REST:
        raise DataError(
            f"sub-{run.subject} run {run.name}: its film ends at {run.film_end:g} s, but the run "
            f"at {end:g} s; name the film that it shows, or state the duration in data.films.shown"
        )


def _sharing(cut: Cut) -> Iterator[str]:
    """Says of trials that start so close together that they have one window."""
    clips: dict[int, list[str]] = {}
    for (clip, _), window in cut.windows:
        if window is not None:
            clips.setdefault(window.first, []).append(clip)
    shared = [names for names in clips.values() if len(names) > 1]
    if shared:
        more = f", and {len(shared) - 1} more such windows" if shared[1:] else ""
        yield (
            f"sub-{cut.run.subject} run {cut.run.name}: clips {shared[0][0]} and {shared[0][1]} "
            f"begin within one volume and have the same window{more}"
        )


def _gather(
    cuts: Sequence[Cut], subject: str, split: Split, problems: Problems
) -> dict[Key, list[Window]]:
    """Every sample with the windows it is made of: one in train, one a repeat in test."""
    gathered: dict[Key, list[Window]] = {}
    for cut in cuts:
        if (cut.run.subject, cut.run.split) != (subject, split):
            continue
        for key, window in cut.windows:
            if split == "train" and key in gathered:
                problems.add(
                    DataError(
                        f"sub-{subject} run {cut.run.name}: clip {key[0]}, repeat {key[1]} was "
                        "shown before to the subject; every showing needs its own repeat number"
                    )
                )
                continue
            gathered.setdefault(key, []).extend([window] if window else [])
    for windows in gathered.values():
        windows.sort(key=lambda window: window.repeat)
    return gathered


def _uncensor(
    gathered: dict[Key, list[Window]], subject: str, split: Split, most: float
) -> Iterator[str]:
    """Takes out windows of which more than the share `most` is censored, and says so.

    A test clip keeps its windows where it has no others: that what is decoded would depend on the
    head's motion would make subjects and methods hard to compare.
    """
    left_out = alone = 0
    for key, windows in gathered.items():
        still = [window for window in windows if window.censored <= most]
        if len(still) == len(windows):
            continue
        if split == "test" and not still:
            alone += 1
            continue
        left_out += len(windows) - len(still)
        gathered[key] = still
    where = f"more than {most:.0%} of a window is censored for motion (data.clean.censor)"
    if left_out:
        what = "training samples" if split == "train" else "showings of test clips"
        yield f"sub-{subject}: {what} are left out, {left_out} of them: {where}"
    if alone:
        what = "test clips without a better showing are kept"
        yield f"sub-{subject}: {what}, {alone} of them: {where}"


def _keys(cuts: Sequence[Cut], split: Split) -> list[Key]:
    """The samples of a split in the order in which the first subject to see them did.

    Train: one per showing of a clip. Test: one per clip, repeats are averaged.
    """
    keys: dict[Key, None] = {}
    for cut in cuts:
        if cut.run.split == split:
            keys |= dict.fromkeys(key for key, _ in cut.windows)
    if not keys:
        raise DataError(f"no {split} run of the study can be used; both splits are needed")
    return list(keys)
