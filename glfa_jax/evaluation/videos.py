"""Scores of decoded videos against the true ones, for arrays in memory."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from glfa_jax import config, system
from glfa_jax.errors import InputError
from glfa_jax.evaluation.models import EvaluationModels
from glfa_jax.evaluation.scoring import Scorer, overall_value
from glfa_jax.results import Metric, Overall


@dataclass(frozen=True, eq=False)
class MetricScores:
    """One metric of every clip.

    about: its variant, whether higher or lower is better, chance level where it is known, unit.
    """

    name: str
    about: Metric
    values: Float[np.ndarray, " clips"]

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @property
    def std(self) -> float:
        """Over clips, with n - 1."""
        return float(self.values.std(ddof=1)) if len(self.values) > 1 else 0.0

    @property
    def chance(self) -> float | None:
        return self.about.chance


@dataclass(frozen=True, eq=False)
class VideoScores(Mapping[str, MetricScores]):
    """Scores by the name of the metric; printed as a table.

    overall: metrics that have one value for all clips, such as the Fréchet distance.
    """

    metrics: Mapping[str, MetricScores]
    overall: Mapping[str, Overall]

    def __getitem__(self, name: str) -> MetricScores:
        return self.metrics[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.metrics)

    def __len__(self) -> int:
        return len(self.metrics)

    def __str__(self) -> str:
        rows = [
            (f"{name} ({one.about.variant})", f"{one.mean:.3f} ± {one.std:.3f}", one.chance)
            for name, one in self.metrics.items()
        ]
        rows += [
            (f"{name} ({one.variant})", f"{one.value:.4g}", None)
            for name, one in self.overall.items()
        ]
        width = max(len(name) for name, *_ in rows)
        return "\n".join(
            f"{name:<{width}}  {value}{'' if chance is None else f'  (chance {chance:.3f})'}"
            for name, value, chance in rows
        )


def score(
    video: UInt8[np.ndarray, "clips f h w 3"],
    truth: UInt8[np.ndarray, "clips f h2 w2 3"],
    *,
    judges: str | Path,
    metrics: Sequence[str] | None = None,
    ways: Sequence[int] = (2, 50),
    batch_size: int = 8,
    seed: int = 0,
) -> VideoScores:
    """Every metric of every decoded clip against the true one (SPEC §6).

    video, truth: 8-bit RGB, clip by clip, of as many frames as are a tubelet of the video
        classifier or more; of these it sees as many as are whole tubelets. Metrics that compare
        pixels are left out where the two differ in size.
    judges: folder of the evaluation models: `video-classifier`, `image-classifier` and `clip`, as
        transformers stores them, and of others that the metrics need; such as
        `foundation/simulated`.
    metrics: names of metrics or of groups; `pixel`, `colour`, `motion`, `embeddings` and `features`
        if left out, as in `evaluation.metrics`. N-way accuracy is always measured.
    ways: the n of n-way accuracy, exact over all draws.
    batch_size: clips that the evaluation models see at a time. seed: of what metrics draw.

    Raises InputError for arrays of another kind or number of frames, unknown metrics, and a folder
    that lacks a model.
    """
    video, truth = np.asarray(video), np.asarray(truth)
    for name, held in (("video", video), ("truth", truth)):
        if held.ndim != 5 or held.shape[-1] != 3 or not held.size:
            raise InputError(f"{name}: {held.shape}, must be (clips, frames, height, width, 3)")
        if held.dtype != np.uint8:
            raise InputError(f"{name}: holds {held.dtype}, must hold uint8")
    for axis, what in ((0, "clips"), (1, "frames")):
        if video.shape[axis] != truth.shape[axis]:
            raise InputError(
                f"video: {video.shape[axis]} {what}, but truth has {truth.shape[axis]}"
            )
    given = {"ways": tuple(ways), "batch_size": batch_size}
    if metrics is not None:
        given["metrics"] = tuple(metrics)
    evaluation = config.of(given, schema=config.Evaluation, source="score")
    models = EvaluationModels(evaluation, foundation=Path(judges), frames=video.shape[1])
    scored = Scorer(evaluation, models, truth).score(video, seed=seed, trials=None)
    return VideoScores(
        {one.name: MetricScores(one.name, one.about, one.values) for one in scored.measured},
        {
            metric.name: overall_value(metric, *scored.of_run[metric.needs], shown=video.shape[1:4])
            for metric in system.asked_metrics(evaluation)
            if metric.per_run
        },
    )
