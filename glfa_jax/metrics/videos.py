"""What the measures of generated against true videos share."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt8

Video = UInt8[np.ndarray, "b f h w 3"]


def check_pair(prediction: Video, *, truth: Video) -> None:
    """Rejects what is no pair of 8-bit RGB videos of one shape."""
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


def per_frame(
    measure: Callable[[np.ndarray, np.ndarray], float], prediction: Video, *, truth: Video
) -> Float[np.ndarray, " b"]:
    """A measure of two frames, mean over each clip's frames."""
    return np.array(
        [
            np.mean([measure(a, b) for a, b in zip(clip, true_clip, strict=True)])
            for clip, true_clip in zip(prediction, truth, strict=True)
        ]
    )
