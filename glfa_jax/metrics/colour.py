"""Colour of generated against true videos."""

from functools import partial
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8

from glfa_jax.metrics import METRICS, QUANTITIES, Metric, Quantity
from glfa_jax.metrics.image import correlation
from glfa_jax.metrics.videos import Video, check_pair, per_frame

_STEPS = 180  # around the circle of hues, as OpenCV keeps them in 8 bits
Hues = UInt8[np.ndarray, "b f h w"]


def hue_correlation(
    prediction: Video, *, truth: Video, measure: Literal["cosine", "pearson"]
) -> Float[np.ndarray, " b"]:
    """Hue-pcc: similarity of the hues of the generated and the true frame, pixel by pixel, mean
    over frames.

    "cosine": what Mind-Animator's code (Lu et al. 2025) computes under the name Hue-pcc. Nothing is
    centred, so unrelated hues already score high. Their code takes red for blue as well; with the
    channels of both videos reversed this function does what it does.
    "pearson": what the name says; unrelated hues score 0.

    Both treat an angle as a number, so reds on either side of 0 count as far apart, and to the
    cosine pure red, whose number is 0, is as good as grey. A frame without hue (cosine) or of one
    hue (Pearson) says nothing about the other and counts as 0, even if they are equal.
    """
    check_pair(prediction, truth=truth)
    return compare_hues(hues(prediction), truth=hues(truth), measure=measure)


def compare_hues(
    prediction: Hues, *, truth: Hues, measure: Literal["cosine", "pearson"]
) -> Float[np.ndarray, " b"]:
    """`hue_correlation` where hues are known, as one video is compared with many others."""
    if measure not in ("cosine", "pearson"):
        raise ValueError(f'hue: measure {measure!r} must be "cosine" or "pearson"')
    compare = correlation if measure == "pearson" else _cosine
    return per_frame(compare, prediction, truth=truth)


def hues(video: Video) -> Hues:
    """Of HSV, in steps of 2 degrees, halves rounded up; grey is 0."""
    return np.stack([_hue(clip) for clip in video])


def _hue(frames: np.ndarray) -> np.ndarray:
    """In integers, so that a hue is the same at every brightness."""
    # 16 bits hold 60 times a difference of 255.
    red, green, blue = np.moveaxis(frames.astype(np.int16), -1, 0)
    top = np.maximum(np.maximum(red, green), blue)
    chroma = top - np.minimum(np.minimum(red, green), blue)
    which = [chroma == 0, top == red, top == green]  # else blue
    first = np.select(which, [0, 0, _STEPS // 3], 2 * _STEPS // 3)
    difference = np.select(which, [0, green - blue, blue - red], red - green)
    # A sixth of the circle times difference / chroma.
    steps = (_STEPS // 3 * difference + chroma) // np.maximum(2 * chroma, 1)
    return ((first + steps) % _STEPS).astype(np.uint8)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(float), b.astype(float)
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    return float((a * b).sum() / norm) if norm else 0.0


QUANTITIES.register(Quantity("hues", hues))
# The cosine that is published as hue-pcc, and the correlation that its name promises.
METRICS.register(
    Metric(
        "hue-pcc",
        group="colour",
        variant="cosine",
        better="higher",
        needs="hues",
        measure=partial(compare_hues, measure="cosine"),
    )
)
METRICS.register(
    Metric(
        "hue correlation",
        group="colour",
        variant="Pearson",
        better="higher",
        needs="hues",
        measure=partial(compare_hues, measure="pearson"),
    )
)
