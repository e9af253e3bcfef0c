"""Motion of generated against true videos.

EPE, TV-L1: the end-point error between the dense optical flows of both clips. Mind-Animator
(Lu et al. 2025) reports it by OpenCV's Farneback flow on frames of 512x512 pixels; flows and scales
differ, so values compare only with those of the same estimator at the same resolution.

The flow is TV-L1 (Zach et al. 2007) as scikit-image has it. Iterative Lucas-Kanade is cheaper, but
on a still, plain ground with noise of 2 grey levels it sees 0.1 to 1.4 pixels of motion,
TV-L1, which prefers smooth flow, below 0.1. TV-L1 falls short of motions beyond a tenth of a small
frame, in true clips and generated ones alike.
"""

import numpy as np
from jaxtyping import Float
from skimage.color import rgb2gray

from glfa_jax.metrics import METRICS, QUANTITIES, Metric, Quantity
from glfa_jax.metrics.optical_flow import tvl1
from glfa_jax.metrics.videos import Video, check_pair

Flow = Float[np.ndarray, "b pairs 2 h w"]


def optical_flow(video: Video) -> Flow:
    """From each frame to the next, (down, right) in pixels, by TV-L1 on grey."""
    check_pair(video, truth=video)
    if video.shape[1] < 2:
        raise ValueError("optical flow: a clip of one frame does not move, 2 are needed")
    grey = rgb2gray(video).astype(np.float32)
    # A clip at a time bounds the memory.
    return np.stack([np.asarray(tvl1(clip[:-1], clip[1:])) for clip in grey])


def flow_distance(flow: Flow, *, truth: Flow) -> Float[np.ndarray, " b"]:
    """EPE, the length of the difference of two flows, mean over pixels and pairs.

    In pixels of the clips' own resolution. Takes flows, as one is compared with many others, and to
    estimate it takes nearly all of the time.
    """
    if flow.shape != truth.shape or flow.ndim != 5 or flow.shape[2] != 2 or 0 in flow.shape:
        raise ValueError(
            f"flows: shapes {flow.shape} and {truth.shape} must be the same, (clips, pairs, 2, "
            "height, width), none empty"
        )
    lengths = (  # of one clip at a time: flows of all fill gigabytes
        np.linalg.norm(own.astype(np.float64) - true, axis=1)
        for own, true in zip(flow, truth, strict=True)
    )
    return np.array([length.mean() for length in lengths])


QUANTITIES.register(Quantity("optical flow", optical_flow))
METRICS.register(
    Metric(
        "EPE",
        group="motion",
        variant="TV-L1",
        better="lower",
        unit="px",
        needs="optical flow",
        measure=flow_distance,
    )
)
