"""Locally connected 2-D convolution with the GLFA layer's normalisation (SPEC §2.2, paper §3).

docs/local_layer.md explains the algorithm and derives the backward pass.
"""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from glfa_jax.ops import local_conv_reference, local_conv_tiled
from glfa_jax.ops.local_conv_tiled import accumulation_dtype

Implementation = Literal["auto", "reference", "tiled"]


class Box(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int


def bounding_box(mask: Bool[np.ndarray, "h w"], *, multiple: int = 8) -> Box:
    """The smallest box around the mask whose sides lie on multiples of `multiple` or the border."""
    if not mask.any():
        return Box(0, 0, min(multiple, mask.shape[0]), min(multiple, mask.shape[1]))
    sides = []
    for axis, size in enumerate(mask.shape):
        (inside,) = np.nonzero(mask.any(1 - axis))
        first = int(inside[0]) // multiple * multiple
        last = min(size, -(-(int(inside[-1]) + 1) // multiple) * multiple)
        sides.append((first, last - first))
    (top, height), (left, width) = sides
    return Box(top, left, height, width)


def local_conv(
    x: Float[Array, "*b h w"],
    theta: Float[Array, "k h w"],
    *,
    kernel_size: int,
    box: Box | None = None,
    implementation: Implementation = "auto",
) -> Float[Array, "*b h w"]:
    """Replaces every pixel by a convex combination of its neighbourhood, own weights per pixel.

    A = identity kernel + theta, weights = |A| / sum |A| over the kernel's taps (row-major), zero
    padding, output zero where the input is exactly zero. No bias. Sums are in float32 at least;
    the result has x's dtype.

    box: where x may differ from zero (`bounding_box`); only there is computed.
    implementation: "reference" through lax, with every derivative; "tiled", the fast one, with
    reverse-mode derivatives only; "auto" picks by platform.

    Raises ValueError for shapes that do not fit.
    """
    taps, height, width = theta.shape
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size: must be odd and positive, got {kernel_size}")
    if taps != kernel_size**2:
        raise ValueError(
            f"theta: {taps} taps a pixel, must be {kernel_size**2} for kernel_size {kernel_size}"
        )
    if x.shape[-2:] != (height, width):
        raise ValueError(f"x: maps are {x.shape[-2:]}, must be {(height, width)} as theta is")
    if implementation == "reference":
        apply = partial(local_conv_reference.local_conv, kernel_size=kernel_size)
    elif implementation in ("auto", "tiled"):
        apply = partial(_fast, kernel_size)
    else:
        raise ValueError(f"implementation: {implementation!r}, must be auto, reference or tiled")
    maps = x.reshape(-1, height, width)
    if box is None:
        return apply(maps, theta).reshape(x.shape)
    if box.top < 0 or box.left < 0 or box.top + box.height > height or box.left + box.width > width:
        raise ValueError(f"box: {tuple(box)} must lie within maps of {(height, width)}")
    rows, columns = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
    inside = apply(maps[:, rows, columns], theta[:, rows, columns])
    return jnp.zeros_like(maps).at[:, rows, columns].set(inside).reshape(x.shape)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _fast(kernel_size: int, x: Array, theta: Array) -> Array:
    return _fast_forward(kernel_size, x, theta)[0]


def _fast_forward(kernel_size: int, x: Array, theta: Array) -> tuple[Array, tuple[Array, ...]]:
    """Normalising last, one pass over the weights serves sum and norm."""
    weighted, norm = local_conv_tiled.forward(x, theta, kernel_size=kernel_size)
    y = jnp.where(x != 0, weighted / norm, 0).astype(x.dtype)
    return y, (x, theta, y, norm)


def _fast_backward(kernel_size: int, kept: tuple[Array, ...], g: Array) -> tuple[Array, Array]:
    """The two gradients share nothing but g / norm: what is not asked for is not computed."""
    x, theta, y, norm = kept
    g = jnp.where(x != 0, g.astype(accumulation_dtype(x, theta)) / norm, 0)
    dx = local_conv_tiled.input_gradient(g, theta, kernel_size=kernel_size)
    dtheta = local_conv_tiled.weight_gradient(x, g, y, theta, kernel_size=kernel_size)
    return dx.astype(x.dtype), dtheta.astype(theta.dtype)


_fast.defvjp(_fast_forward, _fast_backward)
