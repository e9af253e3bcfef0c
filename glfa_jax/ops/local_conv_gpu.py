"""The locally connected layer on NVIDIA GPUs: Pallas kernels, lowered through Triton.

Every array in the kernels is one-dimensional, one element a thread; output rows, frames and taps
are unrolled into separate arrays. So all sums stay in registers and no thread needs another's
value: no shared memory, no atomics, and each loaded value serves several sums. A warp has WARP
neighbouring columns; the warps of a program read the same weights (or maps), from L1.

Arrays come flat: offsets that the threads add up themselves keep the unrolled kernels small.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Array, Float

WARP = 32
ROWS = 4  # of a program: rows share the values loaded from the window around them
FRAMES = 8  # of a thread, that share a loaded weight: times ROWS sums
FRAME_WARPS = 4  # of a program, with frames of their own
TAP_WARPS = 16  # of a program of dtheta, with a column of taps each
TAP_SUMS = 56  # of a thread there: rows times kernel_size, or fewer rows


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
    plan = _plan(x, kernel_size)
    y, denominator = pl.pallas_call(
        partial(_forward_kernel, plan=plan),
        grid=plan.grid,
        out_shape=[
            jax.ShapeDtypeStruct((x.size,), x.dtype),
            jax.ShapeDtypeStruct((height * width,), jnp.float32),
        ],
        compiler_params=plt.CompilerParams(num_warps=plan.warps, num_stages=1),
        interpret=interpret,
    )(x.reshape(-1), theta.reshape(-1))
    return y.reshape(x.shape), denominator.reshape(height, width)


def input_gradient(
    scaled: Float[Array, "n h w"],
    theta: Float[Array, "k h w"],
    *,
    kernel_size: int,
    interpret: bool = False,
) -> Float[Array, "n h w"]:
    """The gradient of x: gathers over the output pixels that saw each input pixel."""
    if scaled.shape[0] == 0:
        return scaled
    plan = _plan(scaled, kernel_size)
    dx = pl.pallas_call(
        partial(_input_gradient_kernel, plan=plan),
        grid=plan.grid,
        out_shape=jax.ShapeDtypeStruct((scaled.size,), scaled.dtype),
        compiler_params=plt.CompilerParams(num_warps=plan.warps, num_stages=1),
        interpret=interpret,
    )(scaled.reshape(-1), theta.reshape(-1))
    return dx.reshape(scaled.shape)


def weight_gradient(
    x: Float[Array, "n h w"],
    theta: Float[Array, "k h w"],
    y: Float[Array, "n h w"],
    scaled: Float[Array, "n h w"],
    *,
    kernel_size: int,
    interpret: bool = False,
) -> Float[Array, "k h w"]:
    """The gradient of theta: a thread sums, over all frames, the taps of one kernel column."""
    if x.shape[0] == 0:
        return jnp.zeros_like(theta)
    shared = jnp.sum(scaled * y.astype(jnp.float32), axis=0)
    plan = _tap_plan(x, kernel_size)
    dtheta = pl.pallas_call(
        partial(_weight_gradient_kernel, plan=plan),
        grid=plan.grid,
        out_shape=jax.ShapeDtypeStruct((theta.size,), theta.dtype),
        compiler_params=plt.CompilerParams(num_warps=plan.warps, num_stages=1),
        interpret=interpret,
    )(x.reshape(-1), scaled.reshape(-1), theta.reshape(-1), shared.reshape(-1))
    return dtheta.reshape(theta.shape)


class _Plan(NamedTuple):
    """The sizes that one kernel is compiled for."""

    kernel_size: int
    n: int
    height: int
    width: int
    rows: int  # of a program
    warps: int  # of a program
    frames: int  # of a thread
    grid: tuple[int, int, int]  # frames or taps, columns, rows

    @property
    def half(self) -> int:
        return self.kernel_size // 2

    @property
    def pixels(self) -> int:
        return self.height * self.width

    @property
    def window(self) -> int:
        return self.rows + 2 * self.half

    def rows_met_by(self, r: int) -> range:
        """Rows of the program whose taps reach row r of the window around them."""
        return range(max(0, r - 2 * self.half), min(self.rows, r + 1))


def _plan(x: jax.Array, kernel_size: int) -> _Plan:
    n, height, width = x.shape
    programs = pl.cdiv(n, FRAMES * FRAME_WARPS)
    frames = pl.cdiv(n, programs)  # of a program, all programs alike
    warps = min(FRAME_WARPS, pl.next_power_of_2(frames))
    grid = (programs, pl.cdiv(width, WARP), pl.cdiv(height, ROWS))
    frames = pl.cdiv(frames, warps)
    return _Plan(kernel_size, n, height, width, ROWS, warps, frames, grid)


def _tap_plan(x: jax.Array, kernel_size: int) -> _Plan:
    n, height, width = x.shape
    warps = min(TAP_WARPS, pl.next_power_of_2(kernel_size))
    rows = max(1, min(ROWS, TAP_SUMS // kernel_size))
    grid = (pl.cdiv(kernel_size, warps), pl.cdiv(width, WARP), pl.cdiv(height, rows))
    return _Plan(kernel_size, n, height, width, rows, warps, n, grid)


def _forward_kernel(x_ref, theta_ref, y_ref, denominator_ref, *, plan: _Plan):
    sums, denominators = _sum_taps(x_ref, theta_ref, plan, adjoint=False)
    first, column, first_row = _place(plan)
    for i in range(plan.rows):
        row = first_row + i
        own, pixel = (row < plan.height) & (column < plan.width), row * plan.width + column
        # Every thread of a pixel has the same denominator: that of the first frame writes it.
        _store(denominator_ref, pixel, denominators[i], own & (first == 0))
        for f in range(plan.frames):
            here, at = own & (first + f < plan.n), (first + f) * plan.pixels + pixel
            seen = _load(x_ref, at, here) != 0
            _store(y_ref, at, jnp.where(seen, sums[i][f] / denominators[i], 0.0), here)


def _input_gradient_kernel(scaled_ref, theta_ref, dx_ref, *, plan: _Plan):
    sums, _ = _sum_taps(scaled_ref, theta_ref, plan, adjoint=True)
    first, column, first_row = _place(plan)
    for i in range(plan.rows):
        own = (first_row + i < plan.height) & (column < plan.width)
        pixel = (first_row + i) * plan.width + column
        for f in range(plan.frames):
            here = own & (first + f < plan.n)
            _store(dx_ref, (first + f) * plan.pixels + pixel, sums[i][f], here)


def _sum_taps(values_ref, theta_ref, plan: _Plan, *, adjoint: bool):
    """sums[row][frame] of |a| times values over the taps, and per row the sum of |a|.

    A pixel's taps point at its neighbours; in the adjoint its neighbours' taps point at it, so that
    the weights, too, are read at the neighbour.
    """
    first, column, first_row = _place(plan)
    live = [first + f < plan.n for f in range(plan.frames)]
    bases = [(first + f) * plan.pixels for f in range(plan.frames)]

    def add_tap_column(dj, carry):
        sums, totals = [list(row) for row in carry[0]], list(carry[1])
        neighbour = column + (plan.half - dj if adjoint else dj - plan.half)
        inside = (neighbour >= 0) & (neighbour < plan.width)
        for r in range(plan.window):
            row = first_row + (r - plan.half)
            there = inside & (row >= 0) & (row < plan.height)
            pixel = row * plan.width + neighbour
            values = [
                _load(values_ref, base + pixel, there & here)
                for base, here in zip(bases, live, strict=True)
            ]
            for i in plan.rows_met_by(r):
                if adjoint:
                    di, at, mask = i + 2 * plan.half - r, pixel, there
                else:
                    di, at = r - i, (first_row + i) * plan.width + column
                    mask = (first_row + i < plan.height) & (column < plan.width)
                a = _load(theta_ref, (di * plan.kernel_size + dj) * plan.pixels + at, mask)
                weight = jnp.abs(_add_identity(a, di, dj, plan))
                totals[i] += weight
                for f, value in enumerate(values):
                    sums[i][f] += weight * value
        return sums, totals

    zero = jnp.zeros(column.shape, jnp.float32)
    start = [[zero] * plan.frames] * plan.rows, [zero] * plan.rows
    return lax.fori_loop(0, plan.kernel_size, add_tap_column, start)


def _weight_gradient_kernel(x_ref, scaled_ref, theta_ref, shared_ref, dtheta_ref, *, plan: _Plan):
    lane = jnp.arange(plan.warps * WARP)
    dj = pl.program_id(0) * plan.warps + lane // WARP
    column = pl.program_id(1) * WARP + lane % WARP
    first_row = pl.program_id(2) * plan.rows
    neighbour = column + dj - plan.half
    own = (column < plan.width) & (dj < plan.kernel_size)
    inside = own & (neighbour >= 0) & (neighbour < plan.width)
    owns = [own & (first_row + i < plan.height) for i in range(plan.rows)]
    pixels = [(first_row + i) * plan.width + column for i in range(plan.rows)]

    def add_frame(frame, sums):
        sums, base = [list(taps) for taps in sums], frame * plan.pixels
        scaled = [
            _load(scaled_ref, base + pixel, mask) for pixel, mask in zip(pixels, owns, strict=True)
        ]
        for r in range(plan.window):
            row = first_row + (r - plan.half)
            there = inside & (row >= 0) & (row < plan.height)
            x = _load(x_ref, base + row * plan.width + neighbour, there)
            for i in plan.rows_met_by(r):
                sums[i][r - i] += scaled[i] * x
        return sums

    zero = jnp.zeros(lane.shape, jnp.float32)
    sums = lax.fori_loop(0, plan.n, add_frame, [[zero] * plan.kernel_size] * plan.rows)
    for i in range(plan.rows):
        shared = _load(shared_ref, pixels[i], owns[i])
        for di in range(plan.kernel_size):
            at = (di * plan.kernel_size + dj) * plan.pixels + pixels[i]
            a = _add_identity(_load(theta_ref, at, owns[i]), di, dj, plan)
            slope = jnp.where(a > 0, 1.0, jnp.where(a < 0, -1.0, 0.0))
            _store(dtheta_ref, at, slope * (sums[i][di] - shared), owns[i])


def _place(plan: _Plan):
    """First frame and column of each thread, first row of the program, where frames share taps."""
    lane = jnp.arange(plan.warps * WARP)
    first = (pl.program_id(0) * plan.warps + lane // WARP) * plan.frames
    return first, pl.program_id(1) * WARP + lane % WARP, pl.program_id(2) * plan.rows


def _add_identity(a, di: int, dj, plan: _Plan):
    return a + (dj == plan.half).astype(jnp.float32) if di == plan.half else a


def _load(ref, at, mask):
    return plt.load(ref.at[at], mask=mask, other=0.0).astype(jnp.float32)


def _store(ref, at, value, mask):
    # A masked offset may be another thread's: interpreted, that would write the old value back.
    at = jnp.where(mask, at, ref.shape[0])
    plt.store(ref.at[at], value.astype(ref.dtype), mask=mask)
