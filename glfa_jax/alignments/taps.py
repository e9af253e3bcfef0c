"""From where GLFA's local layer fetches a pixel's signal."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy import ndarray

from glfa_jax.ops.local_conv_reference import kernels


def weights_of(theta: Float[ndarray, "k h w"]) -> Float[ndarray, "k h w"]:
    """Of every tap at every pixel, with the identity that the layer adds."""
    return np.asarray(kernels(jnp.asarray(theta)), np.float64)


def mean_shift(theta: Float[ndarray, "k h w"]) -> Float[ndarray, "h w 2"]:
    """From how far the layer fetches the signal of a pixel, on average: rows and columns."""
    taps = len(theta)
    reach = int(taps**0.5) // 2
    offsets = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, taps)
    return np.einsum("khw,ck->hwc", weights_of(theta), offsets)
