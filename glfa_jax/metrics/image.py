"""Frame-wise similarity of generated and true videos; each function gives one value a clip."""

import numpy as np
from jaxtyping import Float
from skimage.metrics import peak_signal_noise_ratio

from glfa_jax.metrics.ssim import ssim as ssim
from glfa_jax.metrics.videos import Video, check_pair, per_frame


def psnr(prediction: Video, *, truth: Video) -> Float[np.ndarray, " b"]:
    """Peak signal-to-noise ratio in dB, mean over frames; infinite where a frame is identical."""
    check_pair(prediction, truth=truth)
    with np.errstate(divide="ignore"):
        return per_frame(
            lambda a, b: peak_signal_noise_ratio(b, a, data_range=255), prediction, truth=truth
        )


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
