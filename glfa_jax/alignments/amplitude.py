"""Gives every pixel of fitted maps the amplitude that it had before.

A fit by least squares, like every average, gives flatter maps than it was given; the encoder
behind it stays as it is, and would take them for less of everything.
"""

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float
from numpy import ndarray

from glfa_jax.alignments.volumes import amplitude_of


class Gain(nn.Module):
    """y_p = g_p x_p, the identity at first."""

    height: int
    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "*b h w"]) -> Float[Array, "*b h w"]:
        return x * self.param("gain", nn.initializers.ones, (self.height, self.width))


def restoring(
    volumes: Float[ndarray, "t h w"], *, fitted: Float[ndarray, "t h w"]
) -> Float[ndarray, "h w"]:
    """The gain that gives every fitted pixel the standard deviation over time it had before.

    1 where the fitted pixel does not vary, or did not before.
    """
    before, after = amplitude_of(volumes), amplitude_of(fitted)
    known = (before > 0) & (after > 0)
    return np.where(known, before / np.where(known, after, 1), 1).astype(np.float32)
