"""Frame-wise similarity of generated and true videos; each function gives one value a clip."""

import numpy as np
from jaxtyping import Float, UInt8
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

Video = UInt8[np.ndarray, "b f h w 3"]
SSIM_WINDOW = 7  # pixels, scikit-image's default


def ssim(prediction: Video, *, truth: Video) -> Float[np.ndarray, " b"]:
    """Structural similarity, mean over frames, as scikit-image computes it on 8-bit RGB."""
    _check(prediction, truth)
    if min(truth.shape[2:4]) < SSIM_WINDOW:
        raise ValueError(
            f"SSIM: frames of {truth.shape[2]}x{truth.shape[3]} pixels are smaller than its "
            f"{SSIM_WINDOW}x{SSIM_WINDOW} window"
        )
    return _per_frame(
        lambda a, b: structural_similarity(
            a, b, win_size=SSIM_WINDOW, data_range=255, channel_axis=-1
        ),
        prediction,
        truth,
    )


def psnr(prediction: Video, *, truth: Video) -> Float[np.ndarray, " b"]:
    """Peak signal-to-noise ratio in dB, mean over frames; infinite where a frame is identical."""
    _check(prediction, truth)
    with np.errstate(divide="ignore"):
        return _per_frame(
            lambda a, b: peak_signal_noise_ratio(b, a, data_range=255), prediction, truth
        )


def pixel_correlation(prediction: Video, *, truth: Video) -> Float[np.ndarray, " b"]:
    """Pearson correlation over a frame's pixels and channels, mean over frames.

    A frame of one constant value says nothing about the other and counts as 0.
    """
    _check(prediction, truth)
    return _per_frame(_correlation, prediction, truth)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = (x.ravel() - x.mean() for x in (a, b))
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norm) if norm else 0.0


def _per_frame(metric, prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.array(
        [
            np.mean([metric(a, b) for a, b in zip(clip, true_clip, strict=True)])
            for clip, true_clip in zip(prediction, truth, strict=True)
        ]
    )


def _check(prediction: np.ndarray, truth: np.ndarray) -> None:
    if prediction.shape != truth.shape:
        raise ValueError(
            f"videos: generated {prediction.shape} and true {truth.shape} must have the same shape"
        )
    if truth.ndim != 5 or truth.shape[-1] != 3 or 0 in truth.shape:
        raise ValueError(
            f"videos: shape {truth.shape} must be (clips, frames, height, width, 3), none empty"
        )
    if prediction.dtype != np.uint8 or truth.dtype != np.uint8:
        raise ValueError(
            f"videos: must be uint8 from 0 to 255, are {prediction.dtype} and {truth.dtype}"
        )
