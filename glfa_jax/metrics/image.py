"""Frame-wise similarity of generated and true videos; each function gives one value a clip.

Frames are compared at their own size, in 8 bits, as the published evaluations of fMRI-to-video
decoding do with scikit-image (MinD-Video, Chen et al. 2023, and those after it).
"""

import math
from functools import partial

import numpy as np
from jaxtyping import Float
from skimage.metrics import peak_signal_noise_ratio

from glfa_jax.metrics import METRICS, Metric
from glfa_jax.metrics.ssim import ssim
from glfa_jax.metrics.videos import Video, check_pair, per_frame

MOST_DECIBELS = 100.0  # of a frame that equals its truth


def psnr(prediction: Video, *, truth: Video, most: float = math.inf) -> Float[np.ndarray, " b"]:
    """Peak signal-to-noise ratio in dB, mean over frames: of a frame 10 log10(255² / MSE), the
    mean squared error taken over pixels and channels (scikit-image's peak_signal_noise_ratio).

    most: what a frame counts at most. Without, one frame that equals its truth makes the clip's
    value infinite.
    """
    check_pair(prediction, truth=truth)

    def of_frame(generated: np.ndarray, true: np.ndarray) -> float:
        return min(peak_signal_noise_ratio(true, generated, data_range=255), most)

    with np.errstate(divide="ignore"):
        return per_frame(of_frame, prediction, truth=truth)


def pixel_correlation(prediction: Video, *, truth: Video) -> Float[np.ndarray, " b"]:
    """Pearson correlation over a frame's pixels and channels, mean over frames.

    A frame of one constant value says nothing about the other and counts as 0.
    """
    check_pair(prediction, truth=truth)
    return per_frame(correlation, prediction, truth=truth)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's, of all values of two arrays; 0 where one is constant."""
    a, b = (x.ravel() - x.mean() for x in (a, b))
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norm) if norm else 0.0


METRICS.register(
    Metric("SSIM", group="pixel", variant="scikit-image", better="higher", measure=ssim)
)
METRICS.register(
    Metric(
        "PSNR",
        group="pixel",
        variant=f"scikit-image, a frame at most {MOST_DECIBELS:g}",
        better="higher",
        unit="dB",
        measure=partial(psnr, most=MOST_DECIBELS),
    )
)
METRICS.register(
    Metric(
        "pixel correlation",
        group="pixel",
        variant="Pearson",
        better="higher",
        measure=pixel_correlation,
    )
)
