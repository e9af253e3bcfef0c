"""Locally connected 2-D convolution with the GLFA layer's normalisation (SPEC §2.2, paper §3)."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def local_conv(
    x: Float[Array, "*b h w"], theta: Float[Array, "h w k"], *, kernel_size: int
) -> Float[Array, "*b h w"]:
    """Replaces every pixel by a convex combination of its neighbourhood, own weights per pixel.

    A = identity kernel + theta, weights = |A| / sum |A| over the kernel's taps (row-major), zero
    padding, output zero where the input is exactly zero. No bias.
    """
    height, width, taps = theta.shape
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size: must be odd and positive, got {kernel_size}")
    if taps != kernel_size**2:
        raise ValueError(
            f"theta: {taps} taps a pixel, must be {kernel_size**2} for kernel_size {kernel_size}"
        )
    if x.shape[-2:] != (height, width):
        raise ValueError(f"x: maps are {x.shape[-2:]}, must be {(height, width)} as theta is")
    weights = jnp.abs(jnp.asarray(theta).at[..., taps // 2].add(1.0))
    weights = weights / weights.sum(-1, keepdims=True)
    y = lax.conv_general_dilated_local(
        x.reshape(-1, height, width, 1),
        weights[..., None].astype(x.dtype),
        window_strides=(1, 1),
        padding=[(kernel_size // 2, kernel_size // 2)] * 2,
        filter_shape=(kernel_size, kernel_size),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )
    return y.reshape(x.shape) * (x != 0)
