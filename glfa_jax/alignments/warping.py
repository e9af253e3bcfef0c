"""Maps fetched from displaced places of the same hemisphere, the displacement a smooth spline."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

# Below this share of a bilinear weight there is no cortex to fetch from.
_NOTHING = 1e-3
# How much the difference between neighbouring nodes counts beside what the cortex says.
_ROUGH = 1e-3


class Taps(NamedTuple):
    """Where each of the p pixels is fetched from: pixels, row by row, and their weights."""

    pixels: Int[Array, "4 p"]
    weights: Float[Array, "4 p"]


def hemispheres(mask: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "2 h w"]:
    """1 on the cortex of the left and of the right hemisphere, which a gap of columns separates.

    The empty column nearest to the middle divides them, or the middle where no column is empty:
    hemispheres of different width do not meet in the middle.
    """
    width = mask.shape[1]
    empty = np.flatnonzero(~mask.any(0))
    middle = width / 2
    cut = min(empty, key=lambda column: abs(column + 0.5 - middle), default=width // 2)
    left = np.arange(width) < cut
    return np.stack([mask & left, mask & ~left]).astype(np.float32)


def spacing(maps_shape: tuple[int, int], grid: int) -> Float[np.ndarray, " 2"]:
    """Pixels between nodes of the grid over half of a map: rows, columns."""
    height, width = maps_shape
    return np.array([height - 1, width / 2 - 1]) / max(grid - 1, 1)


def displacement(
    nodes: Float[Array, "2 2 g g"], cortex: Float[Array, "2 h w"]
) -> Float[Array, "2 h w"]:
    """Rows and columns from a pixel to where its signal is fetched; a cubic B-spline.

    nodes: pixels, by hemisphere and direction. The grid of a hemisphere spans its half of the map;
    beyond that half the edge continues. cortex: as of `hemispheres`; zero displacement elsewhere.
    """
    rows, columns = _splines(cortex.shape[-2:], nodes.shape[-1])
    return jnp.einsum("scij,yi,sxj,syx->cyx", nodes, rows, columns, cortex)


def nodes_of(
    shift: Float[np.ndarray, "2 h w"], cortex: Float[np.ndarray, "2 h w"], *, grid: int
) -> Float[np.ndarray, "2 2 g g"]:
    """The nodes whose displacement is nearest to this one on the cortex, by least squares.

    Where no cortex says otherwise, nodes are as their neighbours.
    """
    rows, columns = _splines(shift.shape[-2:], grid)
    step = np.diff(np.eye(grid), axis=0)
    rough = np.concatenate([np.kron(step, np.eye(grid)), np.kron(np.eye(grid), step)])
    found = np.zeros((2, 2, grid, grid), np.float32)
    for side, (columns_of, here) in enumerate(zip(columns, cortex.astype(bool), strict=True)):
        row, column = np.nonzero(here)
        if not len(row):
            continue
        basis = np.einsum("pi,pj->pij", rows[row], columns_of[column]).reshape(len(row), -1)
        gram = basis.T @ basis + _ROUGH * len(row) / grid**2 * rough.T @ rough
        nodes = np.linalg.lstsq(gram, basis.T @ shift[:, here].T, rcond=None)[0]
        found[side] = nodes.T.reshape(2, grid, grid)
    return found


def _splines(
    maps_shape: tuple[int, ...], grid: int
) -> tuple[Float[np.ndarray, "h g"], Float[np.ndarray, "2 w g"]]:
    """Along the rows, and along the columns of each hemisphere."""
    height, width = maps_shape
    down, across = spacing((height, width), grid)
    rows = _spline(np.arange(height) / down, grid)
    columns = np.stack([_spline((np.arange(width) - x) / across, grid) for x in (0, width / 2)])
    return rows, columns


def _spline(places: Float[np.ndarray, " n"], grid: int) -> Float[np.ndarray, "n g"]:
    """Cubic B-splines of the nodes at places in units of the grid's spacing."""
    away = np.abs(np.clip(places, 0, grid - 1)[:, None] - np.arange(grid))
    near = 2 / 3 - away**2 + away**3 / 2
    weights = np.where(away < 1, near, np.clip(2 - away, 0, None) ** 3 / 6)
    # At the edges splines of nodes outside the grid are missing.
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def taps(
    shift: Float[Array, "2 h w"], cortex: Float[Array, "2 h w"], pixels: Int[Array, " p"]
) -> Taps:
    """Bilinear neighbours of the displaced pixels among the cortex of their own hemisphere.

    Their weights sum to 1. Where there is no such neighbour, a pixel keeps its own signal. Pixels
    off the cortex get nothing.
    """
    height, width = cortex.shape[-2:]
    down, across = (one.ravel()[pixels] for one in shift)
    row, column = pixels // width + down, pixels % width + across
    side = (cortex[0] - cortex[1]).ravel()
    top, left = jnp.floor(row).astype(int), jnp.floor(column).astype(int)
    below, right = row - top, column - left
    places, weights = [], []
    for y, rows in ((top, 1 - below), (top + 1, below)):
        for x, columns in ((left, 1 - right), (left + 1, right)):
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            place = jnp.where(inside, y * width + x, pixels)
            places.append(place)
            weights.append(rows * columns * (inside & (side[place] * side[pixels] > 0)))
    found, weight = jnp.stack(places), jnp.stack(weights)
    total = weight.sum(0)
    lost = total < _NOTHING
    own = jnp.zeros_like(weight).at[0].set(jnp.abs(side[pixels]))
    weight = jnp.where(lost, own, weight / jnp.where(lost, 1, total))
    return Taps(jnp.where(lost, pixels, found), weight)


def warp(
    maps: Float[Array, "*b h w"], shift: Float[Array, "2 h w"], cortex: Float[Array, "2 h w"]
) -> Float[Array, "*b h w"]:
    """Every pixel's signal from where the displacement leads; zero off the cortex."""
    height, width = maps.shape[-2:]
    flat = maps.reshape(*maps.shape[:-2], height * width)
    found = taps(shift, cortex, jnp.arange(height * width))
    fetched = sum(
        flat[..., place] * weight for place, weight in zip(found.pixels, found.weights, strict=True)
    )
    return jnp.asarray(fetched).reshape(maps.shape)
