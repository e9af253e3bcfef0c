"""Ridge regression of every pixel on all pixels, held to the identity, without a matrix of both.

W = I + X'(XX' + lambda I)^-1 (Y - X) for maps x as rows. With the singular value decomposition
X = U S V' and the largest `rank` singular values, x W = x + (x V) S / (S^2 + lambda) U'(Y - X): two
thin matrices.
"""

from collections.abc import Iterator
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy import ndarray

# Squared singular values below this share of the largest are what rounding leaves of none.
_NONE = 1e-7


class GlobalRidge(nn.Module):
    """y = x + sum_r (b_r . x) c_r over maps b_r, c_r; the identity at first."""

    height: int
    width: int
    rank: int

    @nn.compact
    def __call__(self, x: Float[Array, "*b h w"]) -> Float[Array, "*b h w"]:
        shape = (self.rank, self.height, self.width)
        basis = self.param("basis", nn.initializers.zeros, shape)
        coefficients = self.param("coefficients", nn.initializers.zeros, shape)
        scores = jnp.einsum("...hw,rhw->...r", x, basis)
        return x + jnp.einsum("...r,rhw->...hw", scores, coefficients)


class _Spectrum(NamedTuple):
    """Of X: U, S^2 and the mean of all S^2, largest first, at most `rank`."""

    vectors: Float[ndarray, "t r"]
    squares: Float[ndarray, " r"]
    mean: float


def _spectrum(x: Float[ndarray, "t v"], *, rank: int) -> _Spectrum:
    squares, vectors = np.linalg.eigh((x @ x.T).astype(np.float64))
    kept = np.flatnonzero(squares > _NONE * squares[-1])[::-1][:rank]
    return _Spectrum(vectors[:, kept], squares[kept], float(squares.mean()))


def solve_global(
    volumes: Float[ndarray, "t h w"],
    *,
    targets: Float[ndarray, "t h w"],
    rank: int,
    strength: float,
) -> dict[str, Float[ndarray, "r h w"]]:
    """The parameters of `GlobalRidge`, filled up with zeros where there are fewer volumes.

    lambda: strength times the mean of S^2 over volumes.
    """
    x, shape = volumes.reshape(len(volumes), -1), (rank, *volumes.shape[1:])
    found = _spectrum(x, rank=rank)
    singular = np.sqrt(found.squares)
    shrunk = singular / (found.squares + strength * found.mean)
    turned = found.vectors.T
    thin = {
        "basis": (turned / singular[:, None]).astype(np.float32) @ x,
        "coefficients": (turned * shrunk[:, None]).astype(np.float32)
        @ (targets.reshape(x.shape) - x),
    }
    filled = {name: np.zeros((rank, x.shape[1]), np.float32) for name in thin}
    for name, rows in thin.items():
        filled[name][: len(rows)] = rows
    return {name: rows.reshape(shape) for name, rows in filled.items()}


def predictions(
    volumes: Float[ndarray, "t h w"],
    targets: Float[ndarray, "t h w"],
    new: Float[ndarray, "t2 h w"],
    *,
    pixels: Int[ndarray, " p"],
    rank: int,
    strengths: tuple[float, ...],
) -> Iterator[Float[ndarray, "t2 p"]]:
    """What a fit with each strength makes of new volumes, for `best_strength`."""
    x, y, other = (a.reshape(len(a), -1)[:, pixels] for a in (volumes, targets, new))
    found = _spectrum(x, rank=rank)
    vectors = found.vectors.astype(np.float32)
    scores, missing = (other @ x.T) @ vectors, vectors.T @ (y - x)
    for strength in strengths:
        shrunk = scores / (found.squares + strength * found.mean)
        yield other + shrunk.astype(np.float32) @ missing
