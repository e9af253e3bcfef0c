"""Convolutions of many images, which devices share."""

import flax.linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from glfa_jax.models.mesh_axes import collapse, expand


class Conv(nn.Conv):
    """Linen's convolution, of whose axes before the kernel's the devices of a mesh share two."""

    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b k"]:
        kernel = self.kernel_size
        over = 1 if isinstance(kernel, int) else len(kernel)
        if x.ndim - 1 - over < 2:
            return super().__call__(x)
        return expand(super().__call__(collapse(x)), b=x.shape[0], s=x.shape[1])


def conv3x3(channels: int, *, dtype: DTypeLike, name: str) -> Conv:
    """A 3x3 convolution over the last two axes before the channels."""
    return Conv(channels, (3, 3), padding=1, dtype=dtype, name=name)


def downsample(
    channels: int, *, padding: int, dtype: DTypeLike, name: str = "downsamplers.0.conv"
) -> Conv:
    """A 3x3 convolution of stride 2; padding 0 stands for one row below and one column right."""
    pads = ((1, 1), (1, 1)) if padding else ((0, 1), (0, 1))
    return Conv(channels, (3, 3), strides=2, padding=pads, dtype=dtype, name=name)
