"""Locally connected 2-D convolution with the GLFA layer's normalisation (SPEC §2.2, paper §3).

docs/local_layer.md explains the algorithm and derives the backward pass.
"""

import warnings
from functools import cache, partial
from types import ModuleType
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from glfa_jax.ops import local_conv_reference, local_conv_tiled
from glfa_jax.ops.devices import platform
from glfa_jax.ops.local_conv_operations import operation

Implementation = Literal["auto", "reference", "tiled", "kernel"]


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
    implementation: "reference" through lax, slow, with derivatives of every kind; "tiled", fast on
    CPU and right everywhere; "kernel", Pallas kernels for the GPU or TPU at hand. The latter two
    have reverse-mode derivatives. "auto" takes the kernels where they run, else "tiled".

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
    else:
        apply = partial(_fast, kernel_size, _kernels(implementation))
    maps = x.reshape(-1, height, width)
    if box is None:
        return apply(maps, theta).reshape(x.shape)
    if box.top < 0 or box.left < 0 or box.top + box.height > height or box.left + box.width > width:
        raise ValueError(f"box: {tuple(box)} must lie within maps of {(height, width)}")
    rows, columns = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
    inside = apply(maps[:, rows, columns], theta[:, rows, columns])
    return jnp.zeros_like(maps).at[:, rows, columns].set(inside).reshape(x.shape)


def _kernels(implementation: str) -> ModuleType:
    """The module whose forward and backward passes serve."""
    if implementation == "tiled":
        return local_conv_tiled
    if implementation in ("auto", "kernel"):
        name = platform()
        device = _of_the_device(name)
        if implementation == "auto":
            if device is None:
                return local_conv_tiled
            # What is compiled for devices that are not here cannot be tried.
            usable = name != jax.default_backend() or _runs(device)
            return device if usable else local_conv_tiled
        if device is None:
            raise ValueError("implementation: there is no kernel for this platform, must be tiled")
        return device
    raise ValueError(
        f"implementation: {implementation!r}, must be auto, reference, tiled or kernel"
    )


def _of_the_device(name: str) -> ModuleType | None:
    """The kernels of a platform, imported only where they can run."""
    if name == "gpu":
        from glfa_jax.ops import local_conv_gpu as kernels
    elif name == "tpu":
        from glfa_jax.ops import local_conv_tpu as kernels
    else:
        return None
    return kernels


@cache
def _runs(device: ModuleType) -> bool:
    """Whether a kernel compiles here and gives, on a small example, what the tiled loops give."""
    with jax.ensure_compile_time_eval():
        x, g = jax.random.normal(jax.random.key(0), (2, 3, 40, 40))
        theta = jax.random.normal(jax.random.key(1), (9, 40, 40))

        def results(kernels: ModuleType) -> tuple[Array, ...]:
            y, denominator = kernels.forward(x, theta, kernel_size=3)
            dx = kernels.input_gradient(g / denominator, theta, kernel_size=3)
            dtheta = kernels.weight_gradient(x, theta, y, g / denominator, kernel_size=3)
            return y, denominator, dx, dtheta

        try:
            found = results(device)
        except Exception as error:  # the compilers' are of many kinds
            warnings.warn(f"the local layer's kernel does not run here: {error}", stacklevel=2)
            return False
        pairs = zip(found, results(local_conv_tiled), strict=True)
        right = all(bool(jnp.allclose(ours, theirs, atol=1e-3)) for ours, theirs in pairs)
    if not right:
        warnings.warn("the local layer's kernel computes wrongly here: not used", stacklevel=2)
    return right


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _fast(kernel_size: int, kernels: ModuleType, x: Array, theta: Array) -> Array:
    return _forward(kernel_size, kernels, x, theta)[0]


def _forward(
    kernel_size: int, kernels: ModuleType, x: Array, theta: Array
) -> tuple[Array, tuple[Array, ...]]:
    y, denominator = operation(kernels, "forward", kernel_size)(x, theta)
    return y, (x, theta, y, denominator)


def _backward(
    kernel_size: int, kernels: ModuleType, kept: tuple[Array, ...], g: Array
) -> tuple[Array, Array]:
    """Two operations, so that XLA drops the gradient that nobody asks for."""
    x, theta, y, denominator = kept
    scaled = jnp.where(x != 0, g.astype(denominator.dtype) / denominator, 0)
    dx = operation(kernels, "input_gradient", kernel_size)(scaled, theta).astype(x.dtype)
    return dx, operation(kernels, "weight_gradient", kernel_size)(x, theta, y, scaled)


_fast.defvjp(_forward, _backward)
