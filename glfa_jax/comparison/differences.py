"""How methods differ on every metric, and whether chance explains it.

Tests over clips take the trained models as given and ask whether other clips would tell the same;
tests over seeds ask whether other trainings would. Holm's correction treats all comparisons of one
kind of test, over methods and metrics, as one family.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from glfa_jax.comparison.methods import LeftOut, Method, clips_text, common_metrics
from glfa_jax.errors import InputError
from glfa_jax.metrics import statistics
from glfa_jax.results import Better, Protocol, Sampling

PAPERS_METHOD = "GLFA"


@dataclass(frozen=True)
class Tested:
    """`holm`: the p-value corrected for all comparisons of its kind."""

    test: statistics.Result
    holm: float


@dataclass(frozen=True)
class Difference:
    """A method minus the reference.

    Over clips, a clip's value is the mean over its subjects and over seeds. interval: percentile
    bootstrap of the paired difference over clips. two_sample: Student's, over clips, as in the
    paper. cohens_d: of the paired differences. over_seeds: Welch's, where both have several seeds.
    A metric of one value a run has no clips to test over.
    """

    estimate: float
    interval: statistics.Interval | None
    two_sample: Tested | None
    paired: Tested | None
    cohens_d: float | None
    over_seeds: Tested | None


@dataclass(frozen=True)
class Entry:
    """One method on one metric. over_clips: of every subject; averaged over seeds first."""

    method: str
    over_clips: statistics.Summary | None
    over_seeds: statistics.Summary
    difference: Difference | None


@dataclass(frozen=True)
class MetricComparison:
    """`chance`: lowest and highest chance level of the runs; entries in the order of methods."""

    name: str
    variant: str
    better: Better
    unit: str
    chance: tuple[float, float] | None
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class MethodFacts:
    name: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    sampling: Sampling


@dataclass(frozen=True)
class Comparison:
    """`clips`: how many of each subject."""

    protocol: Protocol
    clips: dict[str, int]
    reference: str
    methods: tuple[MethodFacts, ...]
    metrics: tuple[MetricComparison, ...]
    notes: tuple[str, ...]

    def comparisons(self, kind: Literal["paired", "over_seeds"]) -> int:
        """Methods times metrics: what Holm's correction counts for one kind of test."""
        return sum(
            entry.difference is not None and getattr(entry.difference, kind) is not None
            for metric in self.metrics
            for entry in metric.entries
        )


def compare(
    methods: Sequence[Method],
    *,
    reference: str | None,
    metrics: Sequence[str] | None,
    bootstrap_seed: int,
) -> Comparison:
    """Every method against the reference: the one named, else GLFA if there, else the first."""
    names = [method.name for method in methods]
    if reference is None:
        reference = PAPERS_METHOD if PAPERS_METHOD in names else names[0]
    elif reference not in names:
        raise InputError(f"reference {reference!r}: no such method here, there are {names}")
    chosen = common_metrics(methods, wanted=metrics)
    first = methods[0].runs[0].scores
    clips, place = np.unique([key.clip for key in sorted(first.keys)], return_inverse=True)
    if len(clips) < 2:
        raise InputError(f"{methods[0].runs[0].source}: one clip; tests need two or more")
    values = {
        name: {method.name: method.values(name) for method in methods} for name in chosen.per_clip
    }
    # How hard a clip is, all subjects who saw it share: counted once a subject, it would pass for
    # as many clips.
    over_clips = {
        name: {
            method: np.bincount(place, weights=own.mean(0)) / np.bincount(place)
            for method, own in each.items()
        }
        for name, each in values.items()
    }
    over_seeds = {
        name: {method: own.mean(1) for method, own in each.items()} for name, each in values.items()
    } | {name: {method.name: method.overall(name) for method in methods} for name in chosen.overall}
    tests = {
        "two_sample": _tested(_student, over_clips, reference),
        "paired": _tested(_paired, over_clips, reference),
        "over_seeds": _tested(_welch, over_seeds, reference),
    }

    def difference(metric: str, method: str) -> Difference:
        own, base = over_seeds[metric][method], over_seeds[metric][reference]
        interval = cohens_d = None
        if metric in over_clips:
            ours, against = over_clips[metric][method], over_clips[metric][reference]
            interval = statistics.bootstrap_interval(ours - against, seed=bootstrap_seed)
            cohens_d = statistics.cohens_d(ours, second=against)
        return Difference(
            estimate=float(own.mean() - base.mean()) if interval is None else interval.estimate,
            interval=interval,
            cohens_d=cohens_d,
            **{kind: tested.get((metric, method)) for kind, tested in tests.items()},
        )

    def entry(metric: str, method: str) -> Entry:
        each = values.get(metric)
        return Entry(
            method=method,
            over_clips=statistics.summarise(each[method].mean(0)) if each else None,
            over_seeds=statistics.summarise(over_seeds[metric][method]),
            difference=None if method == reference else difference(metric, method),
        )

    subjects = [key.subject for key in first.keys]
    return Comparison(
        protocol=first.protocol,
        clips={subject: subjects.count(subject) for subject in sorted(set(subjects))},
        reference=reference,
        methods=tuple(_facts(method) for method in methods),
        metrics=tuple(
            _metric(methods, name, tuple(entry(name, method) for method in names))
            for name in (*chosen.per_clip, *chosen.overall)
        ),
        notes=_notes(methods, chosen.left_out),
    )


# --- tests --------------------------------------------------------------------------------------

Values = dict[str, dict[str, np.ndarray]]
"""Of every metric, of every method."""


def _student(own: np.ndarray, base: np.ndarray) -> statistics.Result | None:
    return statistics.two_sample_t_test(own, second=base, equal_variance=True)


def _paired(own: np.ndarray, base: np.ndarray) -> statistics.Result | None:
    return statistics.paired_t_test(own, second=base)


def _welch(own: np.ndarray, base: np.ndarray) -> statistics.Result | None:
    if min(len(own), len(base)) < 2:
        return None
    return statistics.two_sample_t_test(own, second=base, equal_variance=False)


def _tested(
    test: Callable[[np.ndarray, np.ndarray], statistics.Result | None],
    values: Values,
    reference: str,
) -> dict[tuple[str, str], Tested]:
    """The test of every metric and method that it can be done for, corrected as one family."""
    results = {
        (metric, method): result
        for metric, each in values.items()
        for method, own in each.items()
        if method != reference and (result := test(own, each[reference])) is not None
    }
    if not results:
        return {}
    corrected = statistics.holm(np.array([result.p_value for result in results.values()])).p_values
    return {
        key: Tested(result, float(p))
        for (key, result), p in zip(results.items(), corrected, strict=True)
    }


# --- what is said beside ------------------------------------------------------------------------


def _facts(method: Method) -> MethodFacts:
    runs = tuple(run.source for run in method.runs)
    return MethodFacts(method.name, runs, method.seeds, method.sampling)


def _metric(methods: Sequence[Method], name: str, entries: tuple[Entry, ...]) -> MetricComparison:
    runs = [run.scores for method in methods for run in method.runs]
    if name in runs[0].overall:
        overall = runs[0].overall[name]
        return MetricComparison(name, overall.variant, overall.better, "", None, entries)
    metric = runs[0].metrics[name]
    known = [level for run in runs if (level := run.metrics[name].chance) is not None]
    chance = (min(known), max(known)) if known else None
    return MetricComparison(name, metric.variant, metric.better, metric.unit, chance, entries)


def _notes(methods: Sequence[Method], left_out: Iterable[LeftOut]) -> tuple[str, ...]:
    notes = [
        f"Left out, as not every run has it: {name} (not in {', '.join(sources)})."
        for name, sources in left_out
    ]
    if unscanned := methods[0].runs[0].scores.unscanned:
        notes.append(f"Not decoded, as there is no fMRI of it: {clips_text(unscanned)}.")
    if len({method.sampling for method in methods}) > 1:
        settings = dict.fromkeys(method.sampling for method in methods)
        each = "; ".join(
            f"{sampling}: "
            + ", ".join(method.name for method in methods if method.sampling == sampling)
            for sampling in settings
        )
        notes.append(f"Methods were sampled differently: {each}.")
    if len({len(method.runs) for method in methods}) > 1:
        notes.append(
            "Methods have different numbers of seeds: what is averaged over more of them scatters "
            "less from clip to clip, and tests over clips do not know it."
        )
    return tuple(notes)
