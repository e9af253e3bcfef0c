"""Structural similarity on the device."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from glfa_jax.metrics.videos import Video, check_pair

WINDOW = 7  # pixels, scikit-image's default
_CHANNELS = 3
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def ssim(prediction: Video, *, truth: Video) -> Float[np.ndarray, " b"]:
    """Mean over frames, channels and whole windows.

    Wang et al. 2004 with a uniform 7x7 window and sample covariances: what scikit-image's
    structural_similarity gives for 8-bit RGB with data_range 255, to twelve digits.
    """
    check_pair(prediction, truth=truth)
    if min(truth.shape[2:4]) < WINDOW:
        raise ValueError(
            f"SSIM: frames of {truth.shape[2]}x{truth.shape[3]} pixels are smaller than its "
            f"{WINDOW}x{WINDOW} window"
        )
    # float64 is for the last step alone and costs little; float32 would leave seven digits.
    with jax.enable_x64(True):
        # A clip at a time bounds the memory, and the device computes while the next one is sent.
        values = [_clip(a, b) for a, b in zip(prediction, truth, strict=True)]
        return np.array(jax.device_get(values))


@jax.jit
def _clip(a: UInt8[Array, "f h w 3"], b: UInt8[Array, "f h w 3"]) -> Float[Array, ""]:
    # Windows' sums of 8-bit values and of their products are integers of at most 28 bits: variances
    # come from them without rounding, however small beside the squared means.
    a, b = (x.reshape(*x.shape[:2], -1).astype(jnp.int32) for x in (a, b))
    n = WINDOW**2
    sum_a, sum_b = _window_sums(a), _window_sums(b)
    squares, products = sum_a**2 + sum_b**2, sum_a * sum_b
    variances = n * _window_sums(a * a + b * b) - squares  # of both, times n (n - 1)
    covariance = n * _window_sums(a * b) - products
    c1, c2 = n**2 * _C1, n * (n - 1) * _C2
    squares, products, variances, covariance = (
        x.astype(jnp.float64) for x in (squares, products, variances, covariance)
    )
    luminance = (2 * products + c1) / (squares + c1)
    structure = (2 * covariance + c2) / (variances + c2)
    return (luminance * structure).mean()


def _window_sums(x: Int[Array, "f h wc"]) -> Int[Array, "f h-6 wc-18"]:
    return _seven(_seven(x, axis=1, step=1), axis=2, step=_CHANNELS)


def _seven(x: Int[Array, "..."], *, axis: int, step: int) -> Int[Array, "..."]:
    """Sums of seven neighbours that lie `step` apart, in four additions."""

    def part(x: jax.Array, first: int, size: int) -> jax.Array:
        return jax.lax.slice_in_dim(x, first * step, first * step + size, axis=axis)

    size = x.shape[axis]
    two = part(x, 0, size - step) + part(x, 1, size - step)
    four = part(two, 0, size - 3 * step) + part(two, 2, size - 3 * step)
    size -= 6 * step
    return part(four, 0, size) + part(two, 4, size) + part(x, 6, size)
