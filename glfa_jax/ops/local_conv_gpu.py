"""The locally connected layer on NVIDIA GPUs: Pallas kernels, lowered through Triton.

Every array in the kernels is one-dimensional with one pixel a thread; output rows, frames and taps
are unrolled into separate arrays. So all sums stay in registers and no thread needs another's
value: no shared memory, no atomics, and each loaded value serves several sums.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Array, Float

WARP = 32
COLUMNS = 64  # of a program of the tap sums: two warps, enough programs for small batches
ROWS = 4  # of any program: rows share the values loaded from the window around them
FRAMES = 20  # times ROWS: 80 sums a thread, which leaves room for four programs' registers
TAP_COLUMNS = 16  # of a program of dtheta: one warp each, so that they share the window in L1
TAP_SUMS = 56  # a thread's sums there: ROWS times kernel_size, or fewer rows


def forward(
    x: Float[Array, "n h w"],
    theta: Float[Array, "k h w"],
    *,
    kernel_size: int,
    interpret: bool = False,
) -> tuple[Float[Array, "n h w"], Float[Array, "h w"]]:
    """Output and denominator (sum of |a| over the taps). theta is tap-major, taps row-major."""
    n, height, width = x.shape
    if n == 0:
        return x, jnp.abs(theta.at[kernel_size**2 // 2].add(1.0)).sum(0)
    frames = _frames(n)
    y, denominator = pl.pallas_call(
        partial(_forward_kernel, kernel_size=kernel_size, frames=frames),
        grid=(pl.cdiv(n, frames), pl.cdiv(width, COLUMNS), pl.cdiv(height, ROWS)),
        out_shape=[
            jax.ShapeDtypeStruct(x.shape, x.dtype),
            jax.ShapeDtypeStruct((height, width), jnp.float32),
        ],
        compiler_params=plt.CompilerParams(num_warps=COLUMNS // WARP, num_stages=1),
        interpret=interpret,
    )(x, theta)
    return y, denominator


def backward(
    x: Float[Array, "n h w"],
    theta: Float[Array, "k h w"],
    y: Float[Array, "n h w"],
    denominator: Float[Array, "h w"],
    g: Float[Array, "n h w"],
    *,
    kernel_size: int,
    interpret: bool = False,
) -> tuple[Float[Array, "n h w"], Float[Array, "k h w"]]:
    """Gradients of x and theta; g is the gradient of y. Two kernels: XLA drops an unused one."""
    dx = input_gradient(x, theta, denominator, g, kernel_size=kernel_size, interpret=interpret)
    dtheta = weight_gradient(
        x, theta, y, denominator, g, kernel_size=kernel_size, interpret=interpret
    )
    return dx, dtheta


def input_gradient(
    x: Float[Array, "n h w"],
    theta: Float[Array, "k h w"],
    denominator: Float[Array, "h w"],
    g: Float[Array, "n h w"],
    *,
    kernel_size: int,
    interpret: bool = False,
) -> Float[Array, "n h w"]:
    """The gradient of x: gathers over the output pixels that saw each input pixel."""
    n, height, width = x.shape
    if n == 0:
        return x
    frames = _frames(n)
    return pl.pallas_call(
        partial(_input_gradient_kernel, kernel_size=kernel_size, frames=frames),
        grid=(pl.cdiv(n, frames), pl.cdiv(width, COLUMNS), pl.cdiv(height, ROWS)),
        out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
        compiler_params=plt.CompilerParams(num_warps=COLUMNS // WARP, num_stages=1),
        interpret=interpret,
    )(_scale(x, denominator, g), theta)


def weight_gradient(
    x: Float[Array, "n h w"],
    theta: Float[Array, "k h w"],
    y: Float[Array, "n h w"],
    denominator: Float[Array, "h w"],
    g: Float[Array, "n h w"],
    *,
    kernel_size: int,
    interpret: bool = False,
) -> Float[Array, "k h w"]:
    """The gradient of theta: a thread sums over all frames the taps of one kernel column."""
    n, height, width = x.shape
    if n == 0:
        return jnp.zeros_like(theta)
    scaled = _scale(x, denominator, g)
    shared = jnp.sum(scaled * y.astype(jnp.float32), axis=0)
    rows = max(1, min(ROWS, TAP_SUMS // kernel_size))
    tap_columns = min(TAP_COLUMNS, pl.next_power_of_2(kernel_size))
    return pl.pallas_call(
        partial(_weight_gradient_kernel, kernel_size=kernel_size, rows=rows),
        grid=(pl.cdiv(kernel_size, tap_columns), pl.cdiv(width, WARP), pl.cdiv(height, rows)),
        out_shape=jax.ShapeDtypeStruct(theta.shape, jnp.float32),
        compiler_params=plt.CompilerParams(num_warps=tap_columns, num_stages=1),
        interpret=interpret,
    )(x, scaled, theta, shared)


def _forward_kernel(x_ref, theta_ref, y_ref, denominator_ref, *, kernel_size, frames):
    n, height, width = x_ref.shape
    sums, denominators = _sum_taps(
        x_ref, theta_ref, kernel_size=kernel_size, frames=frames, adjoint=False
    )
    start, first_row, column = _place(frames)
    for i in range(ROWS):
        row = first_row + i
        own = (row < height) & (column < width)
        # Every program of these pixels has the same denominator: the first one writes it.
        plt.store(denominator_ref.at[row, column], denominators[i], mask=own & (start == 0))
        for f in range(frames):
            at = (start + f, row, column)
            here = own & (start + f < n)
            seen = plt.load(x_ref.at[at], mask=here, other=0.0) != 0
            y = jnp.where(seen, sums[i][f] / denominators[i], 0.0)
            plt.store(y_ref.at[at], y.astype(y_ref.dtype), mask=here)


def _input_gradient_kernel(scaled_ref, theta_ref, dx_ref, *, kernel_size, frames):
    n, height, width = scaled_ref.shape
    sums, _ = _sum_taps(scaled_ref, theta_ref, kernel_size=kernel_size, frames=frames, adjoint=True)
    start, first_row, column = _place(frames)
    for i in range(ROWS):
        for f in range(frames):
            own = (first_row + i < height) & (column < width) & (start + f < n)
            at = (start + f, first_row + i, column)
            plt.store(dx_ref.at[at], sums[i][f].astype(dx_ref.dtype), mask=own)


def _sum_taps(values_ref, theta_ref, *, kernel_size, frames, adjoint):
    """sums[row][frame] of |a| times values over the taps, and per row the sum of |a|.

    A pixel's taps point at its neighbours; in the adjoint its neighbours' taps point at it, so both
    the weights and the values are read at the neighbour.
    """
    n, height, width = values_ref.shape
    half = kernel_size // 2
    start, first_row, column = _place(frames)

    def add_tap_column(dj, carry):
        sums, totals = [list(row) for row in carry[0]], list(carry[1])
        neighbour = column + (half - dj if adjoint else dj - half)
        inside = (neighbour >= 0) & (neighbour < width)
        for r in range(ROWS + 2 * half):
            row = first_row + r - half
            seen = inside & (row >= 0) & (row < height)
            values = [
                plt.load(
                    values_ref.at[start + f, row, neighbour],
                    mask=seen & (start + f < n),
                    other=0.0,
                ).astype(jnp.float32)
                for f in range(frames)
            ]
            for i in range(max(0, r - 2 * half), min(ROWS, r + 1)):
                di = i + 2 * half - r if adjoint else r - i
                if adjoint:
                    at, there = (row, neighbour), seen
                else:
                    at, there = (first_row + i, column), (first_row + i < height) & (column < width)
                weight = plt.load(theta_ref.at[(di * kernel_size + dj, *at)], mask=there, other=0.0)
                if di == half:
                    weight += (dj == half).astype(jnp.float32)
                weight = jnp.abs(weight)
                totals[i] += weight
                for f in range(frames):
                    sums[i][f] += weight * values[f]
        return sums, totals

    zero = jnp.zeros((COLUMNS,), jnp.float32)
    return lax.fori_loop(0, kernel_size, add_tap_column, ([[zero] * frames] * ROWS, [zero] * ROWS))


def _weight_gradient_kernel(
    x_ref, scaled_ref, theta_ref, shared_ref, dtheta_ref, *, kernel_size, rows
):
    n, height, width = x_ref.shape
    half = kernel_size // 2
    lanes = WARP * min(TAP_COLUMNS, pl.next_power_of_2(kernel_size))
    lane = jnp.arange(lanes)
    dj = pl.program_id(0) * (lanes // WARP) + lane // WARP
    column = pl.program_id(1) * WARP + lane % WARP
    first_row = pl.program_id(2) * rows
    own = (column < width) & (dj < kernel_size)
    neighbour = column + dj - half
    inside = own & (neighbour >= 0) & (neighbour < width)

    def add_frame(frame, sums):
        sums = [list(taps) for taps in sums]
        scaled = [
            plt.load(
                scaled_ref.at[frame, first_row + i, column],
                mask=own & (first_row + i < height),
                other=0.0,
            )
            for i in range(rows)
        ]
        for r in range(rows + 2 * half):
            row = first_row + r - half
            x = plt.load(
                x_ref.at[frame, row, neighbour],
                mask=inside & (row >= 0) & (row < height),
                other=0.0,
            ).astype(jnp.float32)
            for i in range(max(0, r - 2 * half), min(rows, r + 1)):
                sums[i][r - i] += scaled[i] * x
        return sums

    zero = jnp.zeros((lanes,), jnp.float32)
    sums = lax.fori_loop(0, n, add_frame, [[zero] * kernel_size] * rows)
    for i in range(rows):
        here = own & (first_row + i < height)
        shared = plt.load(shared_ref.at[first_row + i, column], mask=here, other=0.0)
        for di in range(kernel_size):
            at = (di * kernel_size + dj, first_row + i, column)
            a = plt.load(theta_ref.at[at], mask=here, other=0.0)
            if di == half:
                a += (dj == half).astype(jnp.float32)
            slope = jnp.where(a > 0, 1.0, jnp.where(a < 0, -1.0, 0.0))
            plt.store(dtheta_ref.at[at], slope * (sums[i][di] - shared), mask=here)


def _place(frames: int):
    """First frame, first row and columns of a program that sums taps."""
    column = pl.program_id(1) * COLUMNS + jnp.arange(COLUMNS)
    return pl.program_id(0) * frames, pl.program_id(2) * ROWS, column


def _frames(n: int) -> int:
    """Frames of a program, all programs alike."""
    return pl.cdiv(n, pl.cdiv(n, FRAMES))


def _scale(x, denominator, g):
    return jnp.where(x != 0, g.astype(jnp.float32) / denominator, 0.0)
