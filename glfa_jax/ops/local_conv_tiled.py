"""The local layer as loops over taps and cache-sized tiles: fast on CPU, right on any device.

XLA:CPU is fastest where a loop body multiplies and adds whole rows, each cut out by a slice of its
own; several windows out of one slice are many times slower. So each function walks the taps with
one such body, over a tile that stays in the cache, and reads every weight once. Weights are
tap-major, (taps, h, w): a row of one tap is contiguous.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike
from jaxtyping import Float

_ROWS_OF_ALL_FRAMES = 80  # in a tile of the forward pass: 80 KB at width 256
_ROWS_OF_A_FRAME = 8  # in a tile of the weights' gradient


def forward(
    x: Float[Array, "n h w"], theta: Float[Array, "k h w"], *, kernel_size: int
) -> tuple[Float[Array, "n h w"], Float[Array, "h w"]]:
    """Output and denominator (sum of |a| over the taps), which is divided by last.

    So one pass over the weights serves both sums.
    """
    n, height, width = x.shape
    half, dtype = kernel_size // 2, jnp.result_type(x, theta, jnp.float32)
    rows = max(1, min(height, _ROWS_OF_ALL_FRAMES // max(n, 1)))
    padded = jnp.pad(x, ((0, 0), (half, half), (half, half)))

    def tile(top: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        def tap(t: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
            weight = jnp.abs(_row(theta, t, top, rows=rows, dtype=dtype))
            start = (0, top + t // kernel_size, t % kernel_size)
            window = lax.dynamic_slice(padded, start, (n, rows, width))
            return sums[0] + weight * window, sums[1] + weight

        empty = jnp.zeros((n, rows, width), dtype), jnp.zeros((rows, width), dtype)
        weighted, norm = lax.fori_loop(0, len(theta), tap, empty)
        return (
            lax.dynamic_update_slice(sums[0], weighted, (0, top, 0)),
            lax.dynamic_update_slice(sums[1], norm, (top, 0)),
        )

    empty = jnp.zeros(x.shape, dtype), jnp.zeros((height, width), dtype)
    weighted, denominator = _over_tiles(tile, empty, height=height, rows=rows)
    return jnp.where(x != 0, weighted / denominator, 0).astype(x.dtype), denominator


def input_gradient(
    scaled: Float[Array, "n h w"], theta: Float[Array, "k h w"], *, kernel_size: int
) -> Float[Array, "n h w"]:
    """The gradient of x: `scaled`, that of the weighted sums, spread over their parts."""
    n, height, width = scaled.shape
    half, dtype = kernel_size // 2, scaled.dtype
    padded = jnp.pad(scaled, ((0, 0), (half, half), (0, 0)))

    def row(r: Array, dx: Array) -> Array:
        def tap(t: Array, spread: Array) -> Array:
            down, right = kernel_size - 1 - t // kernel_size, t % kernel_size
            # Beyond the first and last row any weight will do: the gradient there is zero.
            top = jnp.clip(r + down - half, 0, height - 1)
            weight = jnp.abs(_row(theta, t, top, rows=1, dtype=dtype))
            new = weight * lax.dynamic_slice(padded, (0, r + down, 0), (n, 1, width))
            old = lax.dynamic_slice(spread, (0, 0, right), (n, 1, width))
            return lax.dynamic_update_slice(spread, old + new, (0, 0, right))

        spread = jnp.zeros((n, 1, width + kernel_size - 1), dtype)
        spread = lax.fori_loop(0, len(theta), tap, spread)
        return lax.dynamic_update_slice(dx, spread[..., half : half + width], (0, r, 0))

    return lax.fori_loop(0, height, row, jnp.zeros_like(scaled))


def weight_gradient(
    x: Float[Array, "n h w"],
    theta: Float[Array, "k h w"],
    y: Float[Array, "n h w"],
    scaled: Float[Array, "n h w"],
    *,
    kernel_size: int,
) -> Float[Array, "k h w"]:
    """The gradient of theta: sign of a, times the sum over frames of scaled (x at the tap - y)."""
    n, height, width = x.shape
    half, dtype = kernel_size // 2, scaled.dtype
    rows = min(height, _ROWS_OF_A_FRAME)
    # Several frames a body load and store the sum less often; more than four gain nothing.
    together = next(m for m in (4, 2, 1) if n % m == 0)
    padded = jnp.pad(x, ((0, 0), (half, half), (half, half)))

    def tile(top: Array, gradient: Array) -> Array:
        def over_frames(values: Array, row: Array, column: Array) -> Array:
            """Sum of scaled values; as a loop, for XLA:CPU sums slowly over a leading axis."""

            def product(i: Array) -> Array:
                window = lax.dynamic_slice(values, (i, row, column), (1, rows, width))[0]
                return window * lax.dynamic_slice(scaled, (i, top, 0), (1, rows, width))[0]

            def few(i: Array, total: Array) -> Array:
                return total + sum(product(i * together + j) for j in range(together))

            return lax.fori_loop(0, n // together, few, jnp.zeros((rows, width), dtype))

        of_the_mean = over_frames(y, top, jnp.zeros_like(top))

        def tap(t: Array, gradient: Array) -> Array:
            of_the_tap = over_frames(padded, top + t // kernel_size, t % kernel_size)
            sign = jnp.sign(_row(theta, t, top, rows=rows, dtype=dtype))
            new = sign * (of_the_tap - of_the_mean)
            return lax.dynamic_update_slice(gradient, new[None], (t, top, 0))

        return lax.fori_loop(0, len(theta), tap, gradient)

    empty = jnp.zeros(theta.shape, dtype)
    return _over_tiles(tile, empty, height=height, rows=rows).astype(theta.dtype)


def _row(theta: Array, t: Array, top: Array, *, rows: int, dtype: DTypeLike) -> Array:
    """Rows of tap t of a = identity + theta."""
    taps, _, width = theta.shape
    rows_of_tap = lax.dynamic_slice(theta, (t, top, 0), (1, rows, width))[0]
    return rows_of_tap.astype(dtype) + (t == taps // 2)


def _over_tiles(tile: Callable[[Array, Any], Any], carry: Any, *, height: int, rows: int) -> Any:
    """Runs tile(first row, carry) over all rows; the last tile may repeat some of its neighbour."""

    def step(i: Array, carry: Any) -> Any:
        return tile(jnp.minimum(i * rows, height - rows), carry)

    return lax.fori_loop(0, -(-height // rows), step, carry)
