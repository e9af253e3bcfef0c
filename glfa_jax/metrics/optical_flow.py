"""Optical flow on the device."""

from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Bool, Float, Int
from scipy.ndimage import zoom
from skimage.transform import pyramid_reduce

# scikit-image's defaults: a large attachment trusts the frames, a small tightness smooths less.
_ATTACHMENT, _TIGHTNESS = 15.0, 0.3
_WARPS, _ITERATIONS, _SMOOTHINGS = 5, 10, 2
_TOLERANCE = 1e-4  # mean square change in which a level counts as solved, pixels
_LEAST = 16  # pixels, the shorter side of the coarsest level
_STEP = 0.25  # of the dual variables, 1 / (2 axes x 2)


@jax.jit
def tvl1(before: Float[Array, "b h w"], after: Float[Array, "b h w"]) -> Float[Array, "b 2 h w"]:
    """From each frame to its next, (down, right) in pixels; grey values from 0 to 1.

    Zach et al. 2007 with the pyramid, the steps and the stopping rule of scikit-image's
    optical_flow_tvl1, whose result it equals to float32's rounding.
    """
    return jax.vmap(_pair)(before, after)


def _pair(before: Float[Array, "h w"], after: Float[Array, "h w"]) -> Float[Array, "2 h w"]:
    levels = [(before, after)]
    while min(levels[-1][0].shape) > 2 * _LEAST:
        levels.append((_half(levels[-1][0]), _half(levels[-1][1])))
    flow = jnp.zeros((2, *levels[-1][0].shape))
    for pair in reversed(levels):
        flow = _solve(*pair, _enlarged(flow, pair[0].shape))
    return flow


def _half(image: Float[Array, "h w"]) -> Float[Array, "h2 w2"]:
    rows, columns = (_halving(n) for n in image.shape)
    return jnp.einsum("yh,hw,xw->yx", rows, image, columns, precision="highest")


@cache
def _halving(size: int) -> Float[np.ndarray, "half size"]:
    """scikit-image's smoothing and halving of one axis, as a matrix."""
    return np.asarray(pyramid_reduce(np.eye(size), channel_axis=1), np.float32)


def _enlarged(flow: Float[Array, "2 h w"], shape: tuple[int, ...]) -> Float[Array, "2 h2 w2"]:
    """To a finer level, whose pixels are smaller."""
    old = flow.shape[1:]
    rows, columns = (_nearest(*sizes) for sizes in zip(old, shape, strict=True))
    scale = jnp.array([n / o for n, o in zip(shape, old, strict=True)], jnp.float32)
    return scale[:, None, None] * flow[:, rows][:, :, columns]


@cache
def _nearest(old: int, new: int) -> Int[np.ndarray, " new"]:
    return np.asarray(zoom(np.arange(old), new / old, order=0, mode="nearest"))


class _Solution(NamedTuple):
    """duals: of the total variation, for each component of the flow and axis."""

    flow: Float[Array, "2 h w"]
    duals: Float[Array, "2 2 h w"]
    solved: Bool[Array, ""]


def _solve(
    before: Float[Array, "h w"], after: Float[Array, "h w"], flow: Float[Array, "2 h w"]
) -> Float[Array, "2 h w"]:
    """On one level, from what the level below found."""
    warp = partial(_warp, before, after)
    start = _Solution(flow, jnp.zeros((2, *flow.shape)), jnp.array(False))
    return jax.lax.fori_loop(0, _WARPS, lambda _, found: warp(found), start).flow


def _warp(before: Float[Array, "h w"], after: Float[Array, "h w"], found: _Solution) -> _Solution:
    """The problem made linear around the flow so far, and solved."""
    grid = jnp.indices(before.shape, before.dtype)
    warped = map_coordinates(after, [*(grid + found.flow)], order=1, mode="nearest")
    slope = jnp.stack(jnp.gradient(warped))
    steepness = (slope**2).sum(0)
    steepness = jnp.where(steepness == 0, 1, steepness)
    constant = warped - before - (slope * found.flow).sum(0)

    def towards_data(flow: Array) -> Array:
        residual = constant + (slope * flow).sum(0)
        most = _ATTACHMENT * _TIGHTNESS
        step = jnp.where(
            jnp.abs(residual) <= most * steepness, residual / steepness, most * jnp.sign(residual)
        )
        return flow - step * slope

    def iterate(_: int, state: tuple[Array, Array]) -> tuple[Array, Array]:
        flow, duals = state
        return _smoothed(towards_data(flow), duals)

    flow, duals = jax.lax.fori_loop(0, _ITERATIONS, iterate, (found.flow, found.duals))
    # scikit-image measures the change from the first step of the data term.
    change = jnp.sum((towards_data(found.flow) - flow) ** 2)
    new = _Solution(flow, duals, change < _TOLERANCE * before.size)
    return jax.tree.map(lambda old, new: jnp.where(found.solved, old, new), found, new)


def _smoothed(
    target: Float[Array, "2 h w"], duals: Float[Array, "2 2 h w"]
) -> tuple[Float[Array, "2 h w"], Float[Array, "2 2 h w"]]:
    """Flow near `target` of less total variation, by Chambolle's projection."""
    flow = target
    for _ in range(_SMOOTHINGS):
        slopes = jnp.stack([_difference(flow, axis) for axis in (1, 2)], axis=1)
        length = jnp.sqrt((slopes**2).sum(1, keepdims=True))
        duals = (duals - _STEP * slopes) / (1 + _STEP / _TIGHTNESS * length)
        flow = target - _divergence(duals)
    return flow, duals


def _difference(x: Float[Array, "2 h w"], axis: int) -> Float[Array, "2 h w"]:
    """To the next pixel, 0 at the border."""
    last = jax.lax.slice_in_dim(x, x.shape[axis] - 1, None, axis=axis)
    return jnp.diff(x, axis=axis, append=last)


def _divergence(duals: Float[Array, "2 2 h w"]) -> Float[Array, "2 h w"]:
    down, right = duals[:, 0], duals[:, 1]
    above = jnp.pad(down[:, :-1], ((0, 0), (1, 0), (0, 0)))
    left = jnp.pad(right[:, :, :-1], ((0, 0), (0, 0), (1, 0)))
    return down - above + right - left
