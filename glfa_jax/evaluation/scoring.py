"""What one set of generated videos is worth against the true clips: every metric, clip by clip."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial
from itertools import chain

import numpy as np
from tqdm import tqdm

from glfa_jax import config
from glfa_jax.evaluation.decoding import HeldOut
from glfa_jax.evaluation.models import EvaluationModels, Predictions
from glfa_jax.evaluation.trained import training_of
from glfa_jax.method import method_name
from glfa_jax.metrics import colour, embeddings, image, motion, nway
from glfa_jax.metrics.frechet import frechet_distance
from glfa_jax.results import ClipKey, ClipScores, Metric, Overall, Protocol, Sampling, Scores

_MOST_DECIBELS = 100.0  # of a frame that equals its truth
_MISMATCHES = 5


@dataclass(frozen=True)
class Measured:
    """One metric of every clip.

    mismatched: the same against other clips' truth, averaged; computed when called, and None for
    what is compared with no truth.
    """

    name: str
    about: Metric
    values: np.ndarray
    mismatched: Callable[[], np.ndarray] | None


@dataclass(frozen=True)
class Scored:
    """All metrics of one subject's clips; features of the generated and of the true ones.

    drawn: accuracy by drawing, where it is asked for. judges: digests of the evaluation models.
    """

    measured: list[Measured]
    drawn: list[Measured]
    features: tuple[np.ndarray, np.ndarray]
    judges: Mapping[str, str]


class Scorer:
    """Scores against one set of true clips, uint8 (b, f, h, w, 3)."""

    def __init__(self, settings: config.Evaluation, models: EvaluationModels, truth: np.ndarray):
        self._settings, self._models, self._truth = settings, models, truth
        self._true = models(truth)
        self._labels = {
            "video": nway.top_classes(self._true.video),
            "frame": nway.top_classes(_flat(self._true.frame)),
        }

    @cached_property
    def _flow(self) -> np.ndarray:
        return _flow(self._truth)

    @cached_property
    def _hues(self) -> np.ndarray:
        return colour.hues(self._truth)

    def score(self, generated: np.ndarray, *, seed: int, trials: int | None) -> Scored:
        """Every metric that is asked for and applies.

        seed: of the draws, and of which other clips stand for a mismatch. trials: of accuracy by
        drawing, which takes longer the more there are; without, no accuracy is drawn. Measures that
        compare pixels are left out where generated and true clips differ in size.
        """
        predicted, asked = self._models(generated), self._settings.metrics
        measures: dict[str, Callable] = {"exact": nway.nway_exact}
        if trials is not None:
            drawing = partial(nway.nway_monte_carlo, trials=trials, seed=seed)
            measures[f"Monte Carlo, {trials} trials"] = drawing
        measured, *drawn = self._accuracies(predicted, measures).values()
        if generated.shape[1:] == self._truth.shape[1:]:
            if "pictures" in asked:
                measured += self._pixel(generated, seed)
            if "colour" in asked:
                measured += self._colour(generated, seed)
            if "motion" in asked:
                measured += self._motion(generated, seed)
        if "embeddings" in asked:
            measured += self._embeddings(predicted, seed)
        features = predicted.features, self._true.features
        return Scored(measured, list(chain(*drawn)), features, self._models.identities)

    def _accuracies(
        self, predicted: Predictions, measures: dict[str, Callable]
    ) -> dict[str, list[Measured]]:
        """By the variant of the measure.

        Variants share their mismatch, whose time grows with the square of the number of clips.
        """
        found = {variant: [] for variant in measures}
        clips = len(predicted.video)
        for kind, probabilities in (("video", predicted.video), ("frame", _flat(predicted.frame))):
            labels = self._labels[kind]
            for n in self._settings.ways:
                chance = nway.chance(probabilities.shape[1], n=n)
                mismatched = cache(partial(_mismatched_nway, probabilities, labels, clips, n))
                for variant, measure in measures.items():
                    values = measure(probabilities, labels=labels, n=n)
                    found[variant].append(
                        Measured(
                            f"{kind} {n}-way",
                            Metric(variant, "higher", chance, ""),
                            values.reshape(clips, -1).mean(1),
                            mismatched,
                        )
                    )
        return found

    def _pixel(self, generated: np.ndarray, seed: int) -> Iterator[Measured]:
        for name, variant, unit, measure in (
            ("SSIM", "scikit-image", "", image.ssim),
            (
                "PSNR",
                f"scikit-image, a frame at most {_MOST_DECIBELS:g}",
                "dB",
                partial(image.psnr, most=_MOST_DECIBELS),
            ),
            ("pixel correlation", "Pearson", "", image.pixel_correlation),
        ):
            about = Metric(variant, "higher", None, unit)
            yield self._against(measure, generated, self._truth, seed, name=name, about=about)

    def _colour(self, generated: np.ndarray, seed: int) -> Iterator[Measured]:
        """The cosine that is published as hue-pcc, and the correlation that its name promises."""
        hues = colour.hues(generated)
        for name, variant, measure in (
            ("hue-pcc", "cosine", partial(colour.compare_hues, measure="cosine")),
            ("hue correlation", "Pearson", partial(colour.compare_hues, measure="pearson")),
        ):
            about = _higher(variant)
            yield self._against(measure, hues, self._hues, seed, name=name, about=about)

    def _motion(self, generated: np.ndarray, seed: int) -> Iterator[Measured]:
        flow = _flow(generated)
        about = Metric("TV-L1", "lower", None, "px")
        yield self._against(motion.flow_distance, flow, self._flow, seed, name="EPE", about=about)

    def _embeddings(self, predicted: Predictions, seed: int) -> Iterator[Measured]:
        own, true = predicted.embeddings, self._true.embeddings
        assert own is not None
        assert true is not None
        similar = embeddings.video_similarity(own, truth=true)
        gate = self._settings.consistency_gate
        if own.shape == true.shape:
            measure = embeddings.clip_similarity
            about = _higher("cosine")
            yield self._against(measure, own, true, seed, name="CLIP similarity", about=about)
        yield self._against(
            embeddings.video_similarity,
            own,
            true,
            seed,
            name="VIFI similarity",
            about=_higher("the foundation's CLIP"),
        )
        ungated = embeddings.consistency(own, measure="cosine")
        yield Measured("CLIP-pcc", _higher("cosine, ungated"), ungated, None)
        gated = embeddings.gated_consistency(
            own, measure="cosine", similarity=similar, threshold=gate
        )
        about = _higher(f"cosine, 0 to VIFI similarity {gate:g}")
        yield Measured("CLIP-pcc, gated", about, gated, None)

    def _against(
        self,
        measure: Callable,
        own: np.ndarray,
        true: np.ndarray,
        seed: int,
        *,
        name: str,
        about: Metric,
    ) -> Measured:
        mismatched = partial(_mismatched, measure, own, true, seed)
        return Measured(name, about, measure(own, truth=true), mismatched)


def scorers(test: HeldOut, models: EvaluationModels) -> Callable[[str], Scorer]:
    """The scorer of a subject; subjects that saw the same clips share one."""

    @cache
    def against(clips: tuple[int, ...]) -> Scorer:
        return Scorer(test.settings.evaluation, models, test.store.video("test", list(clips)))

    return lambda subject: against(tuple(test.clips(subject)))


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
    settings, protocol = test.settings, test.settings.protocol
    overall = {}
    if "features" in settings.evaluation.metrics:
        overall["Fréchet distance"] = frechet(test, scored)
    return Scores(
        run=settings.name,
        method=method_name(settings),
        seed=seed,
        protocol=Protocol(
            name=protocol.kind(scored),
            train_subjects=protocol.train_subjects,
            test_subjects=tuple(scored),
            pretraining=protocol.pretraining,
            train_data=test.trained.attributes.identity,
            test_data=test.store.attributes.identity,
        ),
        training=training_of(settings, checkpoint=checkpoint),
        sampling=sampling,
        judges=next(iter(scored.values())).judges,
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
        overall=overall,
    )


def frechet(test: HeldOut, scored: dict[str, Scored]) -> Overall:
    """Of all generated clips and, each once, the true ones.

    It depends on how many clips there are, and with fewer than values mostly on that.
    """
    generated = np.concatenate([one.features[0] for one in scored.values()])
    true = {
        clip: features
        for subject, one in scored.items()
        for clip, features in zip(test.clips(subject), one.features[1], strict=True)
    }
    count, values = generated.shape
    return Overall(
        f"video classifier's features, {count} clips, {values} values",
        "lower",
        frechet_distance(generated, truth=np.stack([*true.values()])),
    )


def _higher(variant: str) -> Metric:
    """A similarity: the higher the better, of no unit; what guessing reaches is not known."""
    return Metric(variant, "higher", None, "")


def _flow(videos: np.ndarray) -> np.ndarray:
    clips = tqdm(videos[:, None], desc="motion", unit="clip", leave=False, mininterval=5)
    return np.concatenate([motion.optical_flow(clip) for clip in clips])


def _flat(frames: np.ndarray) -> np.ndarray:
    return frames.reshape(-1, frames.shape[-1])


def _mismatched_nway(
    probabilities: np.ndarray, labels: np.ndarray, clips: int, n: int
) -> np.ndarray:
    """Against the labels of every other clip."""
    group = len(labels) // clips
    total = np.zeros(clips)
    for shift in range(1, clips):
        others = np.roll(labels, shift * group, axis=0)
        values = nway.nway_exact(probabilities, labels=others, n=n)
        total += values.reshape(clips, -1).mean(1)
    return total / (clips - 1)


def _mismatched(measure: Callable, own: np.ndarray, true: np.ndarray, seed: int) -> np.ndarray:
    """Against some other clips."""
    shifts = np.random.default_rng(seed).permutation(np.arange(1, len(true)))[:_MISMATCHES]
    # In two parts, as a copy of all videos would be large.
    values = [
        [*measure(own[:shift], truth=true[-shift:]), *measure(own[shift:], truth=true[:-shift])]
        for shift in shifts
    ]
    return np.mean(values, axis=0)
