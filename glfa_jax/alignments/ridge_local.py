"""Ridge regression of every pixel on its neighbourhood, held to the identity."""

from collections.abc import Iterator
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve
from jaxtyping import Array, Float, Int

# Pixels fitted at once: with 13 x 13 taps and 700 volumes 30 MB of neighbours.
_TOGETHER = 64
# Maps that go through the layer at once, so that they stay in the cache over all taps.
_MAPS = 4
# Pixels at which a strength is judged; all would take as long as many fits.
MOST_PIXELS = 1024


class LocalRidge(nn.Module):
    """y_p = x_p + sum_k theta_pk x_(p+k) over K x K taps, row by row; zero beyond the border."""

    height: int
    width: int
    kernel_size: int

    @nn.compact
    def __call__(self, x: Float[Array, "*b h w"]) -> Float[Array, "*b h w"]:
        size, shape = self.kernel_size, (self.height, self.width)
        theta = self.param("weight", nn.initializers.zeros, (size**2, *shape))

        def one(image: Float[Array, "h w"]) -> Float[Array, "h w"]:
            padded = jnp.pad(image, size // 2)

            def tap(k: Array, total: Array) -> Array:
                corner = (k // size, k % size)
                return total + theta[k] * jax.lax.dynamic_slice(padded, corner, shape)

            return jax.lax.fori_loop(0, size**2, tap, image)

        maps = x.reshape(-1, *shape)
        return jax.lax.map(one, maps, batch_size=_MAPS).reshape(x.shape)


def solve_local(
    volumes: Float[np.ndarray, "t h w"],
    *,
    targets: Float[np.ndarray, "t h w"],
    pixels: Int[np.ndarray, " p"],
    kernel_size: int,
    strength: float,
) -> Float[np.ndarray, "p k"]:
    """theta_p = (N'N + lambda I)^-1 N'(y_p - x_p), N the p's neighbours, (volumes, taps).

    lambda: strength times the mean square of a pixel, times volumes.
    """
    wanted = targets.reshape(len(targets), -1)[:, pixels].T
    return np.asarray(_solve(_padded(volumes, kernel_size), wanted, pixels, kernel_size, strength))


@partial(jax.jit, static_argnums=3)
def _solve(
    padded: Float[Array, "h2 w2 t"],
    targets: Float[Array, "p t"],
    pixels: Int[Array, " p"],
    size: int,
    strength: float,
) -> Float[Array, "p k"]:
    width, count = padded.shape[1] - size + 1, size**2
    cortex = jnp.maximum((padded != 0).any(-1).sum(), 1)
    penalty = strength * jnp.square(padded).sum() / cortex * jnp.eye(count)

    def one(pair: tuple[Array, Array]) -> Float[Array, " k"]:
        neighbours = _neighbours(padded, pair[0], size=size, width=width)
        missing = pair[1] - neighbours[count // 2]
        return solve(neighbours @ neighbours.T + penalty, neighbours @ missing, assume_a="pos")

    return jax.lax.map(one, (pixels, targets), batch_size=_TOGETHER)


@partial(jax.jit, static_argnums=3)
def _predict(
    padded: Float[Array, "h2 w2 t"],
    weights: Float[Array, "p k"],
    pixels: Int[Array, " p"],
    size: int,
) -> Float[Array, "p t"]:
    width = padded.shape[1] - size + 1

    def one(pair: tuple[Array, Array]) -> Float[Array, " t"]:
        neighbours = _neighbours(padded, pair[0], size=size, width=width)
        return neighbours[size**2 // 2] + pair[1] @ neighbours

    return jax.lax.map(one, (pixels, weights), batch_size=_TOGETHER)


def predictions(
    volumes: Float[np.ndarray, "t h w"],
    targets: Float[np.ndarray, "t h w"],
    new: Float[np.ndarray, "t2 h w"],
    *,
    pixels: Int[np.ndarray, " p"],
    kernel_size: int,
    strengths: tuple[float, ...],
) -> Iterator[Float[np.ndarray, "t2 p"]]:
    """What a fit with each strength makes of new volumes, for `best_strength`."""
    padded = _padded(new, kernel_size)
    for strength in strengths:
        weights = solve_local(
            volumes, targets=targets, pixels=pixels, kernel_size=kernel_size, strength=strength
        )
        yield np.asarray(_predict(padded, weights, pixels, kernel_size)).T


def _padded(volumes: Float[np.ndarray, "t h w"], size: int) -> Float[Array, "h2 w2 t"]:
    """With a border of zeros, and the volumes of a pixel beside each other."""
    half = size // 2
    return jnp.pad(jnp.moveaxis(jnp.asarray(volumes), 0, -1), ((half, half), (half, half), (0, 0)))


def _neighbours(
    padded: Float[Array, "h2 w2 t"], pixel: Array, *, size: int, width: int
) -> Float[Array, "k t"]:
    corner = (pixel // width, pixel % width, 0)
    around = jax.lax.dynamic_slice(padded, corner, (size, size, padded.shape[-1]))
    return around.reshape(size**2, -1)
