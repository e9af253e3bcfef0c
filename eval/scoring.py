"""What one set of generated videos is worth against the true clips: every metric, clip by clip."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import numpy as np

from eval.decoding import HeldOut
from glfa_jax import config, system
from glfa_jax.metrics import image, nway
from glfa_jax.results import ClipScores, Metric, Protocol, Sampling, Scores

MONTE_CARLO_TRIALS = 100  # as the official code draws
_MOST_DECIBELS = 100.0
_MISMATCHES = 5


@dataclass(frozen=True)
class Measured:
    """One metric of every clip.

    mismatched: the same with every generated clip judged by other clips' truth, averaged; computed
    when called.
    """

    name: str
    variant: str
    values: np.ndarray
    better: Literal["higher", "lower"] = "higher"
    chance: float | None = None
    unit: str = ""
    mismatched: Callable[[], np.ndarray] | None = None


class Judges:
    """The classifiers, compiled once for all that is scored."""

    def __init__(self, settings: config.Config):
        batch, frames = settings.evaluation.batch_size, settings.data.frames
        self.ways = settings.evaluation.ways
        self.video = _classifier(system.load_video_classifier(settings), batch=batch)
        frame = system.load_judge(settings, "vit", system.IMAGE_CLASSIFIER)
        self.frame = _classifier(frame, batch=batch * frames)


class Scorer:
    """Scores against one set of true clips, uint8 (b, f, h, w, 3), which are judged once."""

    def __init__(self, judges: Judges, truth: np.ndarray):
        self._judges, self._truth = judges, truth
        self._labels = {
            "video": nway.top_classes(judges.video(truth)),
            "frame": nway.top_classes(judges.frame(_frames(truth))),
        }

    def score(self, generated: np.ndarray, *, seed: int) -> list[Measured]:
        """Every metric that applies; seed: of which other clips stand for a mismatch.

        Measures of pictures are left out where generated and true clips differ in size.
        """
        found = self._accuracies(generated)
        return found + self._pictures(generated, seed) if self._same_size(generated) else found

    def monte_carlo(self, generated: np.ndarray, *, seed: int) -> list[Measured]:
        """n-way accuracies as published numbers are, by drawing."""
        return self._accuracies(generated, trials=MONTE_CARLO_TRIALS, seed=seed)

    def _same_size(self, generated: np.ndarray) -> bool:
        return generated.shape == self._truth.shape

    def _accuracies(self, generated: np.ndarray, **drawn: int) -> list[Measured]:
        measure, variant = nway.nway_exact, "exact"
        if drawn:
            measure = partial(nway.nway_monte_carlo, **drawn)
            variant = f"Monte Carlo, {drawn['trials']} trials"
        found = []
        for kind, probabilities in (
            ("video", self._judges.video(generated)),
            ("frame", self._judges.frame(_frames(generated))),
        ):
            labels, clips = self._labels[kind], len(generated)
            for n in self._judges.ways:
                values = measure(probabilities, labels=labels, n=n)
                found.append(
                    Measured(
                        f"{kind} {n}-way",
                        variant,
                        values.reshape(clips, -1).mean(1),
                        chance=nway.chance(probabilities.shape[1], n=n),
                        mismatched=partial(_mismatched_nway, probabilities, labels, clips, n),
                    )
                )
        return found

    def _pictures(self, generated: np.ndarray, seed: int) -> list[Measured]:
        kinds = {
            "SSIM": (image.ssim, "scikit-image", ""),
            "PSNR": (_bounded_psnr, "dB", "dB"),
            "pixel correlation": (image.pixel_correlation, "Pearson", ""),
        }
        return [
            Measured(
                name,
                variant,
                measure(generated, truth=self._truth),
                unit=unit,
                mismatched=partial(_mismatched_pictures, measure, generated, self._truth, seed),
            )
            for name, (measure, variant, unit) in kinds.items()
        ]


def method_name(settings: config.Config) -> str:
    """What the alignment layer makes of it, and what the paper's method does not have."""
    name = {
        (True, True): "GLFA",
        (False, True): "GLFA without global",
        (True, False): "GLFA without local",
        (False, False): "fMRI-PTE-V",
    }[settings.alignment.global_part, settings.alignment.local_part]
    if settings.contrast.token_scale:
        name += ", caption tokens"
    return name + (", LoRA" if settings.cotrain.trainable == "lora" else "")


def scores_of(
    test: HeldOut, measured: dict[str, list[Measured]], *, seed: int, sampling: Sampling
) -> Scores:
    """What was measured of every subject's clips, as scores.json holds it."""
    settings, protocol = test.settings, test.settings.protocol
    first = next(iter(measured.values()))
    return Scores(
        run=settings.name,
        method=method_name(settings),
        seed=seed,
        protocol=Protocol(
            name=protocol.kind(),
            train_subjects=protocol.train_subjects,
            test_subjects=protocol.test_subjects,
            pretraining=protocol.pretraining,
            train_data=test.trained.attributes.identity,
            test_data=test.store.attributes.identity,
        ),
        sampling=sampling,
        metrics={one.name: Metric(one.variant, one.better, one.chance, one.unit) for one in first},
        clips=tuple(
            ClipScores(subject, clip, {one.name: float(one.values[i]) for one in found})
            for subject, found in measured.items()
            for i, clip in enumerate(test.clips(subject))
        ),
        missing=(),
        overall={},
    )


def _classifier(judge: system.Judge, *, batch: int) -> Callable[[np.ndarray], np.ndarray]:
    """Class probabilities of uint8 pictures or videos, in batches of one size, compiled once."""
    module = judge.model.module

    @jax.jit
    def run(variables, x):
        return jax.nn.softmax(module.apply(variables, judge.preprocess(x)), axis=-1)

    def classify(pictures: np.ndarray) -> np.ndarray:
        parts = []
        for start in range(0, len(pictures), batch):
            part = pictures[start : start + batch]
            padded = np.resize(part, (batch, *part.shape[1:]))
            parts.append(jax.device_get(run(judge.model.variables, padded))[: len(part)])
        return np.concatenate(parts)

    return classify


def _frames(videos: np.ndarray) -> np.ndarray:
    return videos.reshape(-1, *videos.shape[2:])


def _bounded_psnr(generated: np.ndarray, *, truth: np.ndarray) -> np.ndarray:
    """A frame that equals its truth has infinite PSNR, which would be the mean's as well."""
    return np.minimum(image.psnr(generated, truth=truth), _MOST_DECIBELS)


def _mismatched_nway(
    probabilities: np.ndarray, labels: np.ndarray, clips: int, n: int
) -> np.ndarray:
    """Judged by the labels of every other clip."""
    group = len(labels) // clips
    total = np.zeros(clips)
    for shift in range(1, clips):
        others = np.roll(labels, shift * group, axis=0)
        values = nway.nway_exact(probabilities, labels=others, n=n)
        total += values.reshape(clips, -1).mean(1)
    return total / (clips - 1)


def _mismatched_pictures(
    measure: Callable, generated: np.ndarray, truth: np.ndarray, seed: int
) -> np.ndarray:
    """Against some other clips."""
    shifts = np.random.default_rng(seed).permutation(np.arange(1, len(truth)))[:_MISMATCHES]
    values = [measure(generated, truth=np.roll(truth, shift, axis=0)) for shift in shifts]
    return np.mean(values, axis=0)
