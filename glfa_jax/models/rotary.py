"""Rotary positions in time, height and width (arXiv 2104.09864, as Wan 2.1 lays them out)."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_BASE = 10000.0


class Rotary(NamedTuple):
    """Cosines and sines of the angles by which pairs of channels turn at each position."""

    cos: Float[np.ndarray, "f n e"]
    sin: Float[np.ndarray, "f n e"]


def rotary(grid: tuple[int, int, int], head_dim: int) -> Rotary:
    """For positions in `grid` (frames, rows, columns), n = rows x columns; e = `head_dim` / 2.

    The first pairs of a head's channels turn with time, then as many with the row as with the
    column. Angles are computed in float64, once for each place along an axis.
    """
    space = 2 * (head_dim // 6)
    cos, sin = [], []
    for axis, width in enumerate((head_dim - 2 * space, space, space)):
        rates = _BASE ** -(np.arange(0, width, 2) / max(width, 1))
        angles = np.arange(grid[axis])[:, None] * rates
        shape = [1, 1, 1, width // 2]
        shape[axis] = grid[axis]
        for values, tables in ((np.cos(angles), cos), (np.sin(angles), sin)):
            small = values.astype(np.float32).reshape(shape)
            tables.append(np.broadcast_to(small, (*grid, width // 2)))
    shape = grid[0], grid[1] * grid[2], head_dim // 2
    return Rotary(*(np.concatenate(tables, -1).reshape(shape) for tables in (cos, sin)))


def rotate(x: Float[Array, "b f n h d"], by: Rotary) -> Float[Array, "b f n h d"]:
    """Turns neighbouring channels, (x1 cos - x2 sin, x1 sin + x2 cos), in float32."""
    pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], x.shape[-1] // 2, 2)
    cos, sin = by.cos[:, :, None], by.sin[:, :, None]
    first, second = pairs[..., 0], pairs[..., 1]
    turned = jnp.stack([first * cos - second * sin, first * sin + second * cos], axis=-1)
    return turned.reshape(x.shape).astype(x.dtype)
