"""Simulated brains: what every place of the visual cortex answers to, and how subjects differ.

A canonical functional map (equal for all) gives each place its tuning. A subject has that map
displaced (local), with signals of distant patches mixed in (global), and an own gain and noise.
The encoding knows the scene (category, colour, ...) and sees the pixels for the early part.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from scipy.signal import lfilter
from scipy.sparse import csr_array
from scipy.special import softmax
from scipy.stats import gamma

from glfa_jax import config
from glfa_jax.simulate.cortex import Cortex, SmoothField, smooth_field
from glfa_jax.simulate.stimuli import BACKGROUNDS, CATEGORIES, COLOURS, MOTIONS, SIZES, Scene

GRID = 16  # cells of the image, per side, whose contrast drives the early part
LABELS = {
    "category": CATEGORIES,
    "colour": COLOURS,
    "motion": MOTIONS,
    "background": BACKGROUNDS,
    "size": SIZES,
}
# Part of the cortex (early, middle, higher) that each label drives, and how strongly.
TUNED = {
    "category": (2, 1.0),
    "colour": (1, 1.0),
    "motion": (1, 1.0),
    "background": (2, 0.6),
    "size": (2, 0.4),
}
TUNING_SCALE = 5.0  # mm, correlation length of tuning over the cortex
SHARPNESS = 2.5  # how exclusively a place answers to one class
FIELD_SWEEP = 40.0  # mm over which the receptive field goes from top to bottom and turns back
EARLY_DEPTH = 0.42  # of the region's depth: where receptive fields reach the image's border
RESPONSE_TO_ALL = 0.5  # answer to any clip, in units of the tuned answers

DISPLACEMENT_SCALE = 20.0  # mm, correlation length of the displacement
GAIN_SCALE = 30.0  # mm, correlation length of the gain
MIXED_PATCHES = 24  # per subject, over both hemispheres
PATCH_RADIUS = 12.0  # mm, Gaussian standard deviation of a mixed patch
LEAST_DISTANCE = 40.0  # mm between a patch and where its foreign signal comes from
NOISE_SCALE = 4.0  # mm, Gaussian standard deviation of the smoothing of noise
NOISE_MEMORY = 0.4  # correlation of noise over one second


def features(scene: Scene, video: UInt8[ndarray, "f h w 3"]) -> Float[ndarray, "f features"]:
    """What drives the cortex in each frame: constant 1, contrast per grid cell, labels one-hot."""
    frames, height, width, _ = video.shape
    if height % GRID or width % GRID:
        raise ValueError(f"video: height and width must be multiples of {GRID}, got {video.shape}")
    grey = video.mean(axis=-1) / 255
    energy = np.hypot(*np.gradient(grey, axis=(1, 2)))
    contrast = energy.reshape(frames, GRID, height // GRID, GRID, width // GRID).mean((2, 4))
    labels = [np.eye(len(names))[names.index(getattr(scene, key))] for key, names in LABELS.items()]
    still = np.concatenate([[1.0], *labels])
    return np.concatenate([np.tile(still, (frames, 1)), contrast.reshape(frames, -1)], axis=1)


@dataclass(frozen=True, eq=False)
class Tuning:
    """The canonical functional map; call `weights` with places to get their tuning."""

    cortex: Cortex
    preference: dict[str, SmoothField]
    scale: dict[str, float]

    def weights(
        self, places: Float[ndarray, "r 2"], side: Int[ndarray, " r"]
    ) -> Float[ndarray, "features r"]:
        """Linear answer of each place to each feature of `features`."""
        parts = self.cortex.parts(places)
        rows = [np.full((1, len(places)), RESPONSE_TO_ALL)]
        for key in LABELS:
            part, strength = TUNED[key]
            answer = _prefer(self.preference[key](places)) * (strength / self.scale[key])
            rows.append((parts[:, part : part + 1] * answer).T)
        rows.append(self._receptive_fields(places, side) * (parts[:, 0] / self.scale["contrast"]))
        return np.concatenate(rows)

    def _receptive_fields(self, places: ndarray, side: ndarray) -> Float[ndarray, "cells r"]:
        """Gaussian weights over the image: the contralateral half, mirrored from area to area.

        Eccentricity grows forward; going up, the field sweeps the height of the image to and fro
        as it does over V1, V2, V3.
        """
        eccentricity = np.clip(places[:, 0] / (EARLY_DEPTH * self.cortex.depth), 0, 1)
        x = 0.5 - side * (0.5 * eccentricity - 0.04)
        y = 0.5 - 0.5 * np.cos(np.pi * places[:, 1] / FIELD_SWEEP)
        size = 0.05 + 0.05 * eccentricity
        centres = (np.arange(GRID) + 0.5) / GRID
        across, down = (
            np.exp(-0.5 * ((centres[:, None] - centre) / size) ** 2) for centre in (x, y)
        )
        across, down = across / across.sum(axis=0), down / down.sum(axis=0)
        return (down[:, None] * across[None, :]).reshape(GRID * GRID, -1)


def _prefer(fields: Float[ndarray, "r k"]) -> Float[ndarray, "r k"]:
    """Patches that prefer one class each; answers to the classes add up to zero."""
    return softmax(SHARPNESS * fields, axis=1) - 1 / fields.shape[1]


def canonical_tuning(cortex: Cortex, *, seed: int) -> Tuning:
    rng = np.random.default_rng([seed, 1])
    preference = {
        key: smooth_field(rng, count=len(names), scale=TUNING_SCALE, waves=128)
        for key, names in LABELS.items()
    }
    scale = {
        key: float(np.sqrt(np.mean(_prefer(field(cortex.canonical)) ** 2)))
        for key, field in preference.items()
    }
    # Typical standard deviation of the contrast that a receptive field sees, over clips.
    return Tuning(cortex, preference, {**scale, "contrast": 0.02})


@dataclass(frozen=True, eq=False)
class Subject:
    """One brain and how it departs from the canonical one; r vertices of the visual region.

    displacement: mm (forward, up); a vertex has the tuning of canonical place + displacement.
    patch_target, patch_source: canonical centres (mm) of p patches, applied in order; around the
        target, a fraction of the signal, `patch_weight` times a Gaussian of the offset from the
        centre, comes from the same offset around the source.
    gain: factor on the signal. noise: standard deviation of noise over that of the signal (root
        mean square over the canonical cortex).
    weights: resulting answer to each feature.
    """

    displacement: Float[ndarray, "r 2"]
    patch_target: Float[ndarray, "p 2"]
    patch_target_side: Int[ndarray, " p"]
    patch_source: Float[ndarray, "p 2"]
    patch_source_side: Int[ndarray, " p"]
    patch_weight: float
    gain: Float[ndarray, " r"]
    noise: float
    weights: Float[ndarray, "features r"]


def draw_subject(simulation: config.Simulation, tuning: Tuning, *, index: int) -> Subject:
    """Subject `index`, the same whatever other subjects there are."""
    cortex = tuning.cortex
    rng = np.random.default_rng([simulation.seed, 2, index])
    field = smooth_field(rng, count=4, scale=DISPLACEMENT_SCALE)(cortex.canonical)
    # Hemispheres move independently of each other.
    displacement = np.where(cortex.side[:, None] < 0, field[:, :2], field[:, 2:])
    displacement *= simulation.displacement / np.sqrt(np.mean((displacement**2).sum(axis=1)))
    target, source = _draw_patches(rng, cortex)
    log_gain = rng.standard_normal() + smooth_field(rng, count=1, scale=GAIN_SCALE)(
        cortex.canonical
    )
    gain = np.exp(simulation.gain * np.sqrt(0.5) * log_gain[:, 0])
    noise = float(simulation.noise * np.exp(simulation.gain * rng.standard_normal()))

    places = cortex.canonical + displacement
    weights = tuning.weights(places, cortex.side)
    for to, from_ in zip(target, source, strict=True):
        offset = cortex.canonical - cortex.canonical[to]
        amount = simulation.mixing * np.exp(-0.5 * (offset**2).sum(axis=1) / PATCH_RADIUS**2)
        touched = (cortex.side == cortex.side[to]) & (amount > 0.01 * simulation.mixing)
        foreign = places[touched] - cortex.canonical[to] + cortex.canonical[from_]
        sides = np.full(touched.sum(), cortex.side[from_])
        foreign_weights = tuning.weights(foreign, sides)
        weights[:, touched] += amount[touched] * (foreign_weights - weights[:, touched])
    return Subject(
        displacement=displacement,
        patch_target=cortex.canonical[target],
        patch_target_side=cortex.side[target],
        patch_source=cortex.canonical[source],
        patch_source_side=cortex.side[source],
        patch_weight=simulation.mixing,
        gain=gain,
        noise=noise,
        weights=weights * gain,
    )


def _draw_patches(rng: np.random.Generator, cortex: Cortex) -> tuple[ndarray, ndarray]:
    """Vertices at the centres of the patches and of the distant places they hear."""
    targets = rng.choice(len(cortex.vertices), MIXED_PATCHES, replace=False)
    sources = []
    for target in targets:
        way = np.linalg.norm(cortex.canonical - cortex.canonical[target], axis=1)
        sources.append(rng.choice(np.flatnonzero(way > LEAST_DISTANCE)))
    return targets, np.array(sources)


def haemodynamic_response(seconds: Float[ndarray, "..."]) -> Float[ndarray, "..."]:
    """Canonical double-gamma response to an impulse: peak near 5 s, undershoot at 15 s, area 1."""
    return (gamma.pdf(seconds, 6) - gamma.pdf(seconds, 16) / 6) / (1 - 1 / 6)


def convolution(
    onsets: Float[ndarray, " f"], volumes: Float[ndarray, " t"], *, duration: float
) -> Float[ndarray, "t f"]:
    """BOLD at the times of the volumes for frames of unit activity at `onsets`; all in seconds."""
    lag = volumes[:, None] - (onsets[None, :] + duration / 2)
    return haemodynamic_response(lag) * duration


def correlated_noise(
    rng: np.random.Generator, smoother: csr_array, *, volumes: int, repetition_time: float
) -> Float[ndarray, "t r"]:
    """Unit-variance noise, AR(1) in time and smooth over the cortex."""
    memory = NOISE_MEMORY**repetition_time
    fresh = rng.standard_normal((smoother.indptr.size - 1, volumes), dtype=np.float32)
    fresh[:, 1:] *= np.float32(np.sqrt(1 - memory**2))  # stationary from the first volume on
    noise = np.asarray(lfilter([1.0], [1.0, -memory], fresh, axis=1), np.float32)
    return (smoother @ noise).T
