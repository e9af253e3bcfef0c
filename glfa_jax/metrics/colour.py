"""Colour of generated against true videos."""

from typing import Literal

import numpy as np
from jaxtyping import Float

from glfa_jax.metrics.image import correlation
from glfa_jax.metrics.videos import Video, check_pair, per_frame

_STEPS = 180  # around the circle of hues, as OpenCV keeps them in 8 bits


def hue_correlation(
    prediction: Video, *, truth: Video, measure: Literal["cosine", "pearson"]
) -> Float[np.ndarray, " b"]:
    """Hue-pcc: similarity of the hue maps (HSV, in steps of 2 degrees, grey is 0) of the generated
    and the true frame, pixel by pixel, mean over frames.

    "cosine": what Mind-Animator's code (Lu et al. 2025) computes under the name Hue-pcc. Nothing is
    centred, so unrelated hues already score high. Their code takes red for blue as well; with the
    channels of both videos reversed this function does what it does.
    "pearson": what the name says; unrelated hues score 0.

    Both treat an angle as a number, so reds on either side of 0 count as far apart. A frame without
    hue (cosine) or of one hue (Pearson) says nothing about the other and counts as 0.
    """
    check_pair(prediction, truth=truth)
    if measure not in ("cosine", "pearson"):
        raise ValueError(f'hue: measure {measure!r} must be "cosine" or "pearson"')
    compare = correlation if measure == "pearson" else _cosine
    return per_frame(lambda a, b: compare(_hue(a), _hue(b)), prediction, truth=truth)


def _hue(frame: np.ndarray) -> np.ndarray:
    """In integers, halves rounded up, so that a hue is the same at every brightness."""
    red, green, blue = np.moveaxis(frame.astype(int), -1, 0)
    top, chroma = frame.max(axis=-1).astype(int), np.ptp(frame, axis=-1).astype(int)
    which = [chroma == 0, top == red, top == green]  # else blue
    first = np.select(which, [0, 0, _STEPS // 3], 2 * _STEPS // 3)
    difference = np.select(which, [0, green - blue, blue - red], red - green)
    # A sixth of the circle times difference / chroma.
    steps = (_STEPS // 3 * difference + chroma) // np.maximum(2 * chroma, 1)
    return (first + steps) % _STEPS


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    return float((a * b).sum() / norm) if norm else 0.0
