"""The locally connected layer on TPU: Pallas kernels that stream the weights once through VMEM.

Inside, maps lie as (row, frame, column): a shift by rows is then an index into an untiled axis, a
shift by columns one lane rotation shared by a whole column of taps, frames fill the sublanes and a
row of weights is read with a sublane broadcast. Everything inside is float32.

A grid step takes ROWS rows of every frame, whose taps reach a window of half a kernel of rows more
above and below. Row r of that window meets tap row r - i of the step's row i. Steps share nothing,
so that chips of two cores share the steps.

The arithmetic takes longer than the transfers: one kernel for both gradients would save little.
"""

from collections.abc import Callable
from functools import partial, reduce
from operator import add
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

ROWS = 8  # the weights' sublane tile; as many rows of sums as stay in registers
SUBLANES, LANES = 8, 128
# What the arrays of one call should take of VMEM, for a v4 core has 16 MiB: more frames go through
# the kernel in another call. The slack is for the compiler's own needs.
VMEM_BYTES, VMEM_SLACK = 12 * 2**20, 4 * 2**20


def forward(
    x: Float[Array, "n h w"],
    theta: Float[Array, "k h w"],
    *,
    kernel_size: int,
    interpret: bool = False,
) -> tuple[Float[Array, "n h w"], Float[Array, "h w"]]:
    """Output and denominator (sum of |a| over the taps). theta is tap-major, taps row-major."""
    plan = _plan(x, kernel_size)
    kernel = _compile(_forward_kernel, "window weights -> rows pixels; weights", plan, interpret)
    weights = _pad(theta, plan)
    parts = [kernel(window, weights) for window in _to_rows(x, plan, halo=plan.half)]
    denominator = parts[0][1][: plan.height, : plan.width]
    return _from_rows([y for y, _ in parts], x), denominator


def input_gradient(
    scaled: Float[Array, "n h w"],
    theta: Float[Array, "k h w"],
    *,
    kernel_size: int,
    interpret: bool = False,
) -> Float[Array, "n h w"]:
    """The gradient of x: `scaled`, that of the weighted sums, spread over their parts."""
    plan = _plan(scaled, kernel_size)
    kernel = _compile(_input_gradient_kernel, "rows weights -> windows; weights", plan, interpret)
    weights = _pad(theta, plan)
    parts = [kernel(rows, weights)[0] for rows in _to_rows(scaled, plan)]
    return _from_rows([_add_windows(windows)[plan.half :] for windows in parts], scaled)


def weight_gradient(
    x: Float[Array, "n h w"],
    theta: Float[Array, "k h w"],
    y: Float[Array, "n h w"],
    scaled: Float[Array, "n h w"],
    *,
    kernel_size: int,
    interpret: bool = False,
) -> Float[Array, "k h w"]:
    """The gradient of theta: sign of a, times the sum over frames of scaled (x at the tap - y)."""
    plan = _plan(x, kernel_size)
    kernel = _compile(
        _weight_gradient_kernel, "rows window weights pixels -> weights; products", plan, interpret
    )
    weights = _pad(theta, plan)
    # Of all frames: every call subtracts its part.
    shared = _pad(jnp.sum(scaled * y.astype(jnp.float32), axis=0) / plan.calls, plan)
    frames = zip(_to_rows(scaled, plan), _to_rows(x, plan, halo=plan.half), strict=True)
    parts = [kernel(rows, window, weights, shared)[0] for rows, window in frames]
    return reduce(add, parts)[:, : plan.height, : plan.width].astype(theta.dtype)


def _forward_kernel(x_ref, theta_ref, y_ref, denominator_ref, absolute_ref, *, plan):
    denominator = _take_absolute(theta_ref, absolute_ref, plan)
    denominator_ref[...] = denominator

    @pl.loop(0, plan.frames // plan.block)
    def _(block):
        at = _frames(block, plan)

        def add_tap_column(dj, sums):
            sums = list(sums)
            for r in range(plan.window):
                shifted = _shift(x_ref[r, at, :], dj - plan.half, plan)
                for i in _rows_met_by(r, plan):
                    sums[i] += _spread(absolute_ref, r - i, dj, i, plan) * shifted
            return tuple(sums)

        zero = jnp.zeros((plan.block, plan.columns), jnp.float32)
        sums = lax.fori_loop(0, plan.kernel_size, add_tap_column, (zero,) * ROWS)
        for i, total in enumerate(sums):
            seen = x_ref[i + plan.half, at, :] != 0
            y_ref[i, at, :] = jnp.where(seen, total / denominator[i : i + 1], 0.0)


def _input_gradient_kernel(g_ref, theta_ref, dx_ref, absolute_ref, *, plan):
    _take_absolute(theta_ref, absolute_ref, plan)
    dx_ref[...] = jnp.zeros_like(dx_ref)

    @pl.loop(0, plan.kernel_size)
    def _(dj):
        @pl.loop(0, plan.frames // plan.block)
        def _(block):
            at = _frames(block, plan)
            g = [g_ref[i, at, :] for i in range(ROWS)]
            for r in range(plan.window):
                # The weights are where g is, so that the sum is shifted, once for all its terms.
                met = _rows_met_by(r, plan)
                total = reduce(add, [_spread(absolute_ref, r - i, dj, i, plan) * g[i] for i in met])
                dx_ref[r, at, :] += _shift(total, plan.half - dj, plan)


def _weight_gradient_kernel(g_ref, x_ref, theta_ref, shared_ref, dtheta_ref, product_ref, *, plan):
    @pl.loop(0, plan.kernel_size)
    def _(dj):
        product_ref[...] = jnp.zeros_like(product_ref)

        @pl.loop(0, plan.frames // plan.block)
        def _(block):
            at = _frames(block, plan)
            g = [g_ref[i, at, :] for i in range(ROWS)]
            for r in range(plan.window):
                shifted = _shift(x_ref[r, at, :], dj - plan.half, plan)
                for i in _rows_met_by(r, plan):
                    product = g[i] * shifted
                    tiles = [product[s : s + SUBLANES] for s in range(0, plan.block, SUBLANES)]
                    # Sublanes are summed only once per tap, after the last frame.
                    product_ref[r - i, i] += reduce(add, tiles)

        for di in range(plan.kernel_size):
            t = di * plan.kernel_size + dj
            a, sums = _a(theta_ref, t, plan), jnp.sum(product_ref[di], axis=1)
            slope = jnp.where(a > 0, 1.0, jnp.where(a < 0, -1.0, 0.0))
            dtheta_ref[t] = slope * (sums - shared_ref[...])


def _take_absolute(theta_ref, absolute_ref, plan):
    """Stores |a| of the step's weights; returns its sum over the taps."""

    def take(t, total):
        absolute = jnp.abs(_a(theta_ref, t, plan))
        absolute_ref[t] = absolute
        return total + absolute

    return lax.fori_loop(0, plan.taps, take, jnp.zeros((ROWS, plan.columns), jnp.float32))


def _a(theta_ref, t, plan):
    return theta_ref[t] + jnp.where(t == plan.taps // 2, jnp.float32(1), jnp.float32(0))


def _spread(ref, di: int, dj, i: int, plan):
    """Row i of a tap for every frame of a block; lane tile by lane tile the load spreads it."""
    t = di * plan.kernel_size + dj
    tiles = [ref[t, i : i + 1, c : c + LANES] for c in range(0, plan.columns, LANES)]
    return jnp.concatenate([jnp.broadcast_to(tile, (plan.block, LANES)) for tile in tiles], axis=1)


def _frames(block, plan):
    return pl.ds(pl.multiple_of(block * plan.block, plan.block), plan.block)


def _rows_met_by(r: int, plan) -> range:
    return range(max(0, r - plan.kernel_size + 1), min(ROWS, r + 1))


def _shift(values, offset, plan):
    """Column c of the result is column c + offset, zero outside the map (a rotation wraps)."""
    rotated = pltpu.roll(values, jnp.mod(-offset, plan.columns), 1)
    column = lax.broadcasted_iota(jnp.int32, values.shape, 1) + offset
    return jnp.where((column >= 0) & (column < plan.width), rotated, 0.0)


class _Plan(NamedTuple):
    """The sizes that a kernel is compiled for."""

    kernel_size: int
    height: int
    width: int
    tiles: int  # of ROWS rows
    columns: int  # width, padded to whole lanes
    calls: int
    frames: int  # of one call, padded to whole sublanes
    block: int  # frames in registers at a time
    vmem_bytes: int

    @property
    def taps(self) -> int:
        return self.kernel_size**2

    @property
    def half(self) -> int:
        return self.kernel_size // 2

    @property
    def window(self) -> int:
        return ROWS + 2 * self.half


def _plan(x: jax.Array, kernel_size: int) -> _Plan:
    n, height, width = x.shape
    columns, window = pl.cdiv(width, LANES) * LANES, ROWS + kernel_size - 1
    # What comes and goes is there twice. The kernel that needs most is that of the weights'
    # gradient: theta and dtheta, the products of a column of taps; of every frame g and x.
    fixed = 4 * columns * ROWS * (4 * kernel_size**2 + kernel_size * SUBLANES)
    per_frame = 4 * columns * 2 * (ROWS + window)
    calls = pl.cdiv(max(n, 1), max(SUBLANES, (VMEM_BYTES - fixed) // per_frame))
    frames = pl.cdiv(pl.cdiv(max(n, 1), calls), SUBLANES) * SUBLANES
    # 16 frames of 256 columns: ROWS sums of 4 registers each, half of the register file
    wide = columns > 2 * LANES or frames % (2 * SUBLANES)
    block = SUBLANES if wide else 2 * SUBLANES
    vmem_bytes = fixed + frames * per_frame + VMEM_SLACK
    tiles = pl.cdiv(height, ROWS)
    return _Plan(kernel_size, height, width, tiles, columns, calls, frames, block, vmem_bytes)


def _compile(
    kernel: Callable[..., None], signature: str, plan: _Plan, interpret: bool
) -> Callable[..., Any]:
    """The kernel as a function of whole arrays; its references' kinds: takes -> gives; scratch."""
    rows, frames, columns = plan.tiles * ROWS, plan.frames, plan.columns
    window = (plan.window, frames, columns)
    kinds = {  # the block of a step, where it lies, the whole array
        "rows": ((ROWS, frames, columns), lambda s: (s, 0, 0), (rows, frames, columns)),
        "window": (tuple(map(pl.Element, window)), lambda s: (s * ROWS, 0, 0), None),
        "windows": ((None, *window), lambda s: (s, 0, 0, 0), (plan.tiles, *window)),
        "weights": ((plan.taps, ROWS, columns), lambda s: (0, s, 0), (plan.taps, rows, columns)),
        "pixels": ((ROWS, columns), lambda s: (s, 0), (rows, columns)),
        "products": ((plan.kernel_size, ROWS, SUBLANES, columns), None, None),
    }
    takes, gives, scratch = (
        [kinds[kind] for kind in side.split()] for side in signature.replace(";", "->").split("->")
    )
    return pl.pallas_call(
        partial(kernel, plan=plan),
        grid=(plan.tiles,),
        in_specs=[pl.BlockSpec(block, place) for block, place, _ in takes],
        out_specs=[pl.BlockSpec(block, place) for block, place, _ in gives],
        out_shape=[jax.ShapeDtypeStruct(whole, jnp.float32) for _, _, whole in gives],
        scratch_shapes=[pltpu.VMEM(block, jnp.float32) for block, _, _ in scratch],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel",), vmem_limit_bytes=plan.vmem_bytes
        ),
        interpret=interpret,
    )


def _pad(a, plan: _Plan):
    """Pixels, at the end of the shape, to whole tiles."""
    pixels = (0, plan.tiles * ROWS - plan.height), (0, plan.columns - plan.width)
    return jnp.pad(a.astype(jnp.float32), [(0, 0)] * (a.ndim - 2) + [*pixels])


def _to_rows(x, plan: _Plan, *, halo: int = 0) -> list[jax.Array]:
    """What each call takes of the maps, zeros around them."""
    n, height, width = x.shape
    below, more = plan.tiles * ROWS - height, plan.calls * plan.frames - n
    rows = jnp.transpose(x.astype(jnp.float32), (1, 0, 2))
    rows = jnp.pad(rows, ((halo, below + halo), (0, more), (0, plan.columns - width)))
    return jnp.split(rows, plan.calls, axis=1)


def _from_rows(parts: list[jax.Array], like):
    n, height, width = like.shape
    rows = jnp.concatenate(parts, axis=1)[:height, :n, :width]
    return jnp.transpose(rows, (1, 0, 2)).astype(like.dtype)


def _add_windows(windows):
    """Rows from the windows around ROWS rows each, which overlap."""
    tiles, window, *shape = windows.shape
    pieces = pl.cdiv(window, ROWS)
    whole = jnp.pad(windows, ((0, 0), (0, pieces * ROWS - window), (0, 0), (0, 0)))
    whole = whole.reshape(tiles, pieces, ROWS, *shape)
    ends = [(p, pieces - 1 - p) for p in range(pieces)]
    moved = [jnp.pad(whole[:, p], (end, (0, 0), (0, 0), (0, 0))) for p, end in enumerate(ends)]
    return reduce(add, moved).reshape(-1, *shape)
