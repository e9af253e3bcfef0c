"""What every place of the visual cortex answers to.

The canonical functional map (equal for all) gives each place its tuning; a subject may have
preferences of its own besides. The encoding knows the scene (category, colour, ...) and sees the
pixels for the early part.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from scipy.special import ndtr, softmax

from glfa_jax.simulate.cortex import Cortex, SmoothField, smooth_field
from glfa_jax.simulate.stimuli import BACKGROUNDS, CATEGORIES, COLOURS, MOTIONS, SIZES, Scene
from glfa_jax.simulate.streams import Stream, generator

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
        to_all = np.full((1, len(places)), RESPONSE_TO_ALL)
        seen = self.receptive_fields(places, side)
        return np.concatenate([to_all, *self.to_labels(places), self.to_contrast(places, seen)])

    def to_labels(self, places: Float[ndarray, "r 2"]) -> list[Float[ndarray, "classes r"]]:
        """The rows of `weights` that belong to the labels."""
        parts = self.cortex.parts(places)
        rows = []
        for key in LABELS:
            part, strength = TUNED[key]
            answer = _prefer(self.preference[key](places)) * (strength / self.scale[key])
            rows.append((parts[:, part : part + 1] * answer).T)
        return rows

    def to_contrast(
        self, places: Float[ndarray, "r 2"], seen: Float[ndarray, "cells r"]
    ) -> Float[ndarray, "cells r"]:
        """The rows of `weights` that belong to contrast, of the cells `seen` from each place."""
        return seen * (self.cortex.parts(places)[:, 0] / self.scale["contrast"])

    def receptive_fields(
        self, places: Float[ndarray, "r 2"], side: Int[ndarray, " r"]
    ) -> Float[ndarray, "cells r"]:
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
    """The map that all subjects share."""
    return _draw_tuning(generator(seed, Stream.TUNING), cortex)


def own_weights(cortex: Cortex, *, seed: int, index: int) -> Float[ndarray, "features r"]:
    """Answers that only subject `index` has, as strong as the canonical ones of the same part.

    They say nothing about any other subject: over subjects, every weight is 0 on average. So there
    is no answer to all clips, and contrast counts in one place of the image against another one.
    """
    rng = generator(seed, Stream.OWN_TUNING, index=index)
    tuning = _draw_tuning(rng, cortex)
    anywhere = ndtr(smooth_field(rng, count=4, scale=TUNING_SCALE)(cortex.canonical))
    extent = np.array([EARLY_DEPTH * cortex.depth, FIELD_SWEEP])
    for_, against = (
        tuning.receptive_fields(extent * half, cortex.side)
        for half in np.split(anywhere, 2, axis=1)
    )
    return np.concatenate(
        [
            np.zeros((1, len(cortex.side))),
            *tuning.to_labels(cortex.canonical),
            tuning.to_contrast(cortex.canonical, (for_ - against) / np.sqrt(2)),
        ]
    )


def _draw_tuning(rng: np.random.Generator, cortex: Cortex) -> Tuning:
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
