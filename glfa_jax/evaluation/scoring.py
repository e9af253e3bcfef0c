"""What one set of generated videos is worth against the true clips: every metric, clip by clip."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
from tqdm import tqdm

from glfa_jax import config, results, system
from glfa_jax.errors import InputError
from glfa_jax.evaluation.decoding import HeldOut
from glfa_jax.evaluation.models import EvaluationModels
from glfa_jax.evaluation.trained import training_of
from glfa_jax.method import method_name
from glfa_jax.metrics import PIXELS, QUANTITIES, Metric
from glfa_jax.results import ClipKey, ClipScores, Overall, Protocol, Sampling, Scores


@dataclass(frozen=True)
class Measured:
    """One metric of every clip.

    mismatched: the same against other clips' truth, averaged; computed when called, and None for
    what is compared with no truth.
    """

    name: str
    about: results.Metric
    values: np.ndarray
    mismatched: Callable[[], np.ndarray] | None


@dataclass(frozen=True)
class Scored:
    """All metrics of one subject's clips.

    drawn: accuracy by drawing, where it is asked for. of_run: what metrics of the whole run need,
    by name, of the generated and of the true clips. identities: digests of the evaluation models.
    """

    measured: list[Measured]
    drawn: list[Measured]
    of_run: Mapping[str, tuple[np.ndarray, np.ndarray]]
    identities: Mapping[str, str]


class _Clips:
    """Videos, uint8 (b, f, h, w, 3), and what metrics need of them, each computed once.

    captions: tokens of the videos' captions, where a metric asks for them.
    """

    def __init__(
        self, videos: np.ndarray, models: EvaluationModels, captions: np.ndarray | None = None
    ):
        self._known = {PIXELS: videos, **models(videos)}
        if captions is not None:
            self._known |= models.of_captions(captions)
        self._references: dict[tuple[str, Callable], np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._known:
            of, videos = QUANTITIES[name].of, self._known[PIXELS]
            clips = tqdm(videos[:, None], desc=name, unit="clip", leave=False, mininterval=5)
            self._known[name] = np.concatenate([of(clip) for clip in clips])
        return self._known[name]

    def as_truth(self, metric: Metric) -> np.ndarray:
        """What a metric takes of true clips."""
        needs = metric.truth_needs or metric.needs
        if metric.of_truth is None:
            return self[needs]
        key = needs, metric.of_truth
        if key not in self._references:
            self._references[key] = metric.of_truth(self[needs])
        return self._references[key]

    def shape(self, name: str) -> tuple[int, ...]:
        """Of one clip; of a quantity, that of the pixels that it is computed of."""
        return self._known.get(name, self._known[PIXELS]).shape[1:]


class Scorer:
    """Scores against one set of true clips, uint8 (b, f, h, w, 3).

    captions: tokens of their captions, (b, n), which metrics with `truth_needs` take.
    """

    def __init__(
        self,
        settings: config.Evaluation,
        models: EvaluationModels,
        truth: np.ndarray,
        captions: np.ndarray | None = None,
    ):
        self._metrics = system.asked_metrics(settings)
        for metric in self._metrics:
            if metric.truth_needs and captions is None:
                raise InputError(
                    f"metric {metric.name!r}: needs captions of the true clips, and there are "
                    "none; ask for it where a run is scored"
                )
        self._models, self._truth = models, _Clips(truth, models, captions)

    def score(self, generated: np.ndarray, *, seed: int, trials: int | None) -> Scored:
        """Every metric that is asked for and applies.

        seed: of the draws, and of which other clips stand for a mismatch. trials: of accuracy by
        drawing, which takes longer the more there are; without, no accuracy is drawn. Measures that
        compare pixels are left out where generated and true clips differ in size.
        """
        clips = _Clips(generated, self._models)
        measured: list[Measured] = []
        drawn: list[Measured] = []
        for metric in self._metrics:
            needs = metric.needs
            if metric.per_run or (
                metric.same_shape and clips.shape(needs) != self._truth.shape(needs)
            ):
                continue
            own, truth = clips[needs], self._truth.as_truth(metric)
            chance = metric.chance(own) if callable(metric.chance) else metric.chance
            about = results.Metric(metric.variant, metric.better, chance, metric.unit)
            # Variants share their mismatch.
            mismatched = metric.mismatched and cache(
                partial(metric.mismatched, metric.measure, own, truth, seed)
            )
            values = _of_clips(metric, metric.measure(own, truth=truth), clips=len(generated))
            measured.append(Measured(metric.name, about, values, mismatched))
            if metric.drawn is not None and trials is not None:
                values = metric.drawn(own, truth=truth, trials=trials, seed=seed)
                values = _of_clips(metric, values, clips=len(generated))
                about = replace(about, variant=f"Monte Carlo, {trials} trials")
                drawn.append(Measured(metric.name, about, values, mismatched))
        of_run = dict.fromkeys(metric.needs for metric in self._metrics if metric.per_run)
        return Scored(
            measured,
            drawn,
            {needs: (clips[needs], self._truth[needs]) for needs in of_run},
            self._models.identities,
        )


def _of_clips(metric: Metric, values: Any, *, clips: int) -> np.ndarray:
    """What a metric gave, if it is a number for each clip; else InputError."""
    if (shape := np.shape(values)) != (clips,):
        raise InputError(
            f"metric {metric.name!r}: gives an array of shape {shape}, must give one value for "
            f"each clip, {(clips,)}"
        )
    return np.asarray(values)


def evaluation_models(settings: config.Config) -> EvaluationModels:
    """Those of the foundation that the configured metrics need."""
    return EvaluationModels(
        settings.evaluation, foundation=settings.foundation, frames=settings.data.frames
    )


def scorers(test: HeldOut, models: EvaluationModels) -> Callable[[str], Scorer]:
    """The scorer of a subject; subjects that saw the same clips share one."""

    @cache
    def against(clips: tuple[int, ...]) -> Scorer:
        truth, own = test.store.video("test", list(clips)), test.settings
        return Scorer(own.evaluation, models, truth, _tokens(test, clips))

    return lambda subject: against(tuple(test.clips(subject)))


def _tokens(test: HeldOut, clips: Sequence[int]) -> np.ndarray | None:
    """Of the captions of test clips, where a metric asks for them."""
    if not any(metric.truth_needs for metric in system.asked_metrics(test.settings.evaluation)):
        return None
    return test.tokens(clips)


def protocol_of(test: HeldOut, subjects: Iterable[str]) -> Protocol:
    """Of a run's test subjects or some of them."""
    own, subjects = test.settings.protocol, tuple(subjects)
    return Protocol(
        name=own.kind(subjects),
        train_subjects=own.train_subjects,
        test_subjects=subjects,
        pretraining=own.pretraining,
        train_data=test.trained.attributes.source,
        test_data=test.store.attributes.source,
        world=test.settings.data.world,
    )


def scores_of(
    test: HeldOut,
    scored: dict[str, Scored],
    *,
    seed: int,
    sampling: Sampling,
    checkpoint: int,
) -> Scores:
    """What was measured of every subject's clips, as scores.json holds it.

    checkpoint: as in `training_of`.
    """
    settings = test.settings
    return Scores(
        run=settings.name,
        method=method_name(settings),
        seed=seed,
        protocol=protocol_of(test, scored),
        training=training_of(settings, checkpoint=checkpoint),
        sampling=sampling,
        judges=next(iter(scored.values())).identities,
        metrics={one.name: one.about for one in next(iter(scored.values())).measured},
        clips=tuple(
            ClipScores(subject, clip, {m.name: float(m.values[i]) for m in found.measured})
            for subject, found in scored.items()
            for i, clip in enumerate(test.clips(subject))
        ),
        missing=(),
        unscanned=tuple(
            ClipKey(subject, clip) for subject in scored for clip in test.unscanned(subject)
        ),
        overall={
            metric.name: over_run(metric, test, scored)
            for metric in system.asked_metrics(settings.evaluation)
            if metric.per_run
        },
    )


def over_run(metric: Metric, test: HeldOut, scored: Mapping[str, Scored]) -> Overall:
    """Of all generated clips and, each once, the true ones.

    A distance of distributions depends on how many clips there are, and with fewer than values
    mostly on that.
    """
    found = {subject: one.of_run[metric.needs] for subject, one in scored.items()}
    generated = np.concatenate([own for own, _ in found.values()])
    true = {
        clip: values
        for subject, (_, truth) in found.items()
        for clip, values in zip(test.clips(subject), truth, strict=True)
    }
    return overall_value(metric, generated, np.stack([*true.values()]), shown=test.shown)


def overall_value(
    metric: Metric, generated: np.ndarray, truth: np.ndarray, *, shown: Sequence[int]
) -> Overall:
    """A metric that has one value for all clips; raises InputError where it gives several.

    shown: frames, height and width of a generated clip.
    """
    value = metric.measure(generated, truth=truth)
    if shape := np.shape(value):
        raise InputError(
            f"metric {metric.name!r}: gives an array of shape {shape}, must give one number, as "
            "it is measured per run"
        )
    clips, values, (frames, height, width) = len(generated), generated[0].size, shown
    variant = metric.variant.format(
        clips=clips,
        values=values,
        shown=f"{frames} frames, {height}x{width}",
        few=", too few clips: mostly bias" if min(clips, len(truth)) <= values else "",
    )
    return Overall(variant, metric.better, float(value))
