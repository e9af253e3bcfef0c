"""Runs become methods, or are rejected because they cannot be compared.

Runs of one method that differ in nothing but the seed are that method; runs of different methods
share clips and protocol, and what they were scored with.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from glfa_jax.errors import InputError
from glfa_jax.results import FROM_NOTHING, ClipKey, Metric, Overall, Sampling, Scores

_LISTED = 5  # clips that a message names before it counts the rest


@dataclass(frozen=True)
class Run:
    """`source` is what messages call it."""

    source: str
    scores: Scores


@dataclass(frozen=True)
class Method:
    """Runs of one method, in the order of their seeds."""

    name: str
    runs: tuple[Run, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.scores.seed for run in self.runs)

    @property
    def sampling(self) -> Sampling:
        return self.runs[0].scores.sampling

    def values(self, metric: str) -> Float[np.ndarray, "seeds clips"]:
        """Clips in the order of their keys, which is the same for all methods compared."""
        rows = []
        for run in self.runs:
            order = sorted(range(len(run.scores.clips)), key=run.scores.keys.__getitem__)
            rows.append(run.scores.values(metric)[order])
        return np.stack(rows)

    def overall(self, metric: str) -> Float[np.ndarray, " seeds"]:
        return np.array([run.scores.overall[metric].value for run in self.runs])


LeftOut = tuple[str, tuple[str, ...]]
"""Name of a metric, sources of the runs that lack it."""


@dataclass(frozen=True)
class Metrics:
    """Names of the metrics to compare: of one value a clip, of one value a run.

    `left_out`: those that only some of the runs have.
    """

    per_clip: tuple[str, ...]
    overall: tuple[str, ...]
    left_out: tuple[LeftOut, ...]


def grouped(runs: Sequence[Run]) -> tuple[Method, ...]:
    """Methods in the order of their first runs. Raises InputError naming what differs."""
    if not runs:
        raise InputError("no runs to compare")
    first = runs[0]
    for run in runs:
        _validate_no_missing(run)
    for run in runs[1:]:
        _validate_same_protocol(run, first)
        _validate_same_clips(run, first)
        _validate_same_evaluation_models(run, first)
    members: dict[str, list[Run]] = {}
    for run in runs:
        members.setdefault(run.scores.method, []).append(run)
    methods = []
    for name, own in members.items():
        ordered = sorted(own, key=lambda run: run.scores.seed)
        for before, run in pairwise(ordered):
            _validate_same_method(run, before)
        methods.append(Method(name, tuple(ordered)))
    return tuple(methods)


def common_metrics(methods: Sequence[Method], *, wanted: Sequence[str] | None) -> Metrics:
    """The metrics that all runs have, or those of them that are wanted, in the order wanted.

    Raises InputError where runs mean different things by one name.
    """
    runs = [run for method in methods for run in method.runs]
    per_clip = _in_all(run.scores.metrics for run in runs)
    overall = _in_all(run.scores.overall for run in runs)
    every = dict.fromkeys(n for r in runs for n in (*r.scores.metrics, *r.scores.overall))
    lacking = {
        name: tuple(run.source for run in runs if name not in _definitions(run))
        for name in every
        if name not in (*per_clip, *overall)
    }
    if mixed := [name for name, sources in lacking.items() if not sources]:
        raise InputError(
            f"metric {mixed[0]!r}: one value a clip in some runs, one value a run in others; score "
            "them alike"
        )
    if wanted is not None:
        for i, name in enumerate(wanted):
            if name in wanted[:i]:
                raise InputError(f"metric {name!r}: is named twice")
            if name in lacking:
                raise InputError(f"metric {name!r}: not in {_few(lacking[name])}")
            if name not in every:
                raise InputError(f"metric {name!r}: in none of the runs; they hold {_text(every)}")
        per_clip, overall = ([n for n in wanted if n in kind] for kind in (per_clip, overall))
        lacking = {}
    if not per_clip and not overall:
        raise InputError(f"no metric that all runs have; some have {_text(every)}")
    for run in runs[1:]:
        _validate_same_definition(run, runs[0], (*per_clip, *overall))
    return Metrics(tuple(per_clip), tuple(overall), tuple(lacking.items()))


def _in_all(names: Iterable[Iterable[str]]) -> list[str]:
    first, *others = names
    return [name for name in first if all(name in other for other in others)]


def _definitions(run: Run) -> dict[str, Metric | Overall]:
    return {**run.scores.metrics, **run.scores.overall}


# --- rejections -----------------------------------------------------------------------------------


def _validate_no_missing(run: Run) -> None:
    if missing := run.scores.missing:
        raise InputError(
            f"{run.source}: {len(missing)} of the wanted clips were not sampled "
            f"({clips_text(missing)}); sample and score them first"
        )


def _validate_same_protocol(run: Run, first: Run) -> None:
    ours, theirs = asdict(run.scores.protocol), asdict(first.scores.protocol)
    for key, value in ours.items():
        other = theirs[key]
        if key == "world":  # as the data are the same; earlier versions did not write it down
            continue
        if key.endswith("subjects"):  # in whichever order
            value, other = ", ".join(sorted(value)), ", ".join(sorted(other))
        if value != other:
            raise InputError(
                f"{run.source}: protocol {key} is {value!r}, but {other!r} in {first.source}; "
                "only runs of one protocol can be compared"
            )


def _validate_same_clips(run: Run, first: Run) -> None:
    ours, theirs = set(run.scores.keys), set(first.scores.keys)
    if ours != theirs:
        parts = [
            f"{word} {clips_text(keys)}"
            for word, keys in (("without", theirs - ours), ("with", ours - theirs))
            if keys
        ]
        raise InputError(
            f"{run.source}: scored on other clips than {first.source}: {' and '.join(parts)}; "
            "only runs of the same clips can be compared"
        )


def _validate_same_evaluation_models(run: Run, first: Run) -> None:
    """An evaluation model of only one of them has no metric in common with the other."""
    ours, theirs = run.scores.judges, first.scores.judges
    for name in ours:
        if name in theirs and ours[name] != theirs[name]:
            raise InputError(
                f"{run.source}: scored with another {name} ({ours[name]}) than {first.source} "
                f"({theirs[name]}); score both with the same one"
            )


def _validate_same_method(run: Run, other: Run) -> None:
    name = run.scores.method
    if run.scores.seed == other.scores.seed:
        raise InputError(
            f"{run.source}: has method {name!r} and seed {run.scores.seed} of {other.source} as "
            f"well; name another run, or call one by a label of its own: LABEL={run.source}"
        )
    ours, theirs = _settings(run.scores), _settings(other.scores)
    for key in ours | theirs:
        value, others = (settings.get(key, "not an option") for settings in (ours, theirs))
        if value != others:
            raise InputError(
                f"{run.source}: {key} is {value}, but {others} in {other.source}, of the same "
                f"method {name!r}; to compare the two settings call one by a label of its own: "
                f"LABEL={run.source}"
            )


def _settings(scores: Scores) -> dict[str, str]:
    """All that runs of one method have in common besides what all runs compared have.

    As earlier versions wrote it: they knew no presets, whose scales are there, and nothing to start
    pretraining from.
    """
    training = {key: x for key, x in scores.training.items() if key != "cotrain.preset"}
    if training.get("pretrain.start_from") == json.dumps(FROM_NOTHING):
        del training["pretrain.start_from"]
    sampling = {f"sampling {key}": repr(value) for key, value in asdict(scores.sampling).items()}
    return {**training, **sampling}


def _validate_same_definition(run: Run, first: Run, names: Iterable[str]) -> None:
    for name in names:
        ours, theirs = (_definitions(r)[name] for r in (run, first))
        for key in ("variant", "better", "unit"):
            value, other = getattr(ours, key, ""), getattr(theirs, key, "")
            if value != other:
                raise InputError(
                    f"{run.source}: metric {name!r} has {key} {value!r}, but {other!r} in "
                    f"{first.source}; score them alike, or leave the metric out with --metrics"
                )


# --- words --------------------------------------------------------------------------------------


def clips_text(keys: Iterable[ClipKey]) -> str:
    """`clips 0, 1, 2, 3, 4 and 3 more of subject 03`, subject after subject."""
    by_subject: dict[str, list[str]] = {}
    for key in sorted(keys):
        by_subject.setdefault(key.subject, []).append(str(key.clip))
    return "; ".join(
        f"clip{'s' if len(clips) > 1 else ''} {_few(clips)} of subject {subject}"
        for subject, clips in by_subject.items()
    )


def _few(items: Sequence[str]) -> str:
    rest = len(items) - _LISTED
    return ", ".join(items[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def _text(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
