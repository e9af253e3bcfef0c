"""The locally connected layer on TPU: Pallas kernels that stream the weights once through VMEM.

Inside, maps lie as (row, frame, column): a shift by rows is then an index into an untiled axis, a
shift by columns one lane rotation shared by a whole column of taps, frames fill the sublanes and a
row of weights is read with a sublane broadcast. Everything inside is float32.

A grid step takes ROWS rows of every frame, with half a kernel of rows above and below. Row r of
that window meets tap row r - i of the step's row i.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

ROWS = 8  # the weights' sublane tile; as many rows of sums as stay in registers
SUBLANES, LANES = 8, 128
# What one call may hold in VMEM (v5e and v6e have 128 MiB, v5p 64): frames beyond that go through
# the kernel in another call. The slack is for the compiler's own needs.
VMEM_BYTES, VMEM_SLACK = 40 * 2**20, 8 * 2**20


def forward(
    x: Float[Array, "n h w"],
    theta: Float[Array, "k h w"],
    *,
    kernel_size: int,
    interpret: bool = False,
) -> tuple[Float[Array, "n h w"], Float[Array, "h w"]]:
    """Output and denominator (sum of |a| over the taps). theta is tap-major, taps row-major."""
    n, height, width = x.shape
    plan = _plan(n, height, width, kernel_size)
    weights = _pad_weights(theta, plan)
    outputs = []
    for part in _split(x, plan):
        y, denominator = pl.pallas_call(
            partial(_forward_kernel, plan=plan),
            grid=(plan.tiles,),
            in_specs=[_window_spec(plan), _weights_spec(plan)],
            out_specs=[_rows_spec(plan, plan.tiles), _pixels_spec(plan)],
            out_shape=[
                _shape(plan.tiles * ROWS, plan.frames, plan.columns),
                _shape(plan.tiles * ROWS, plan.columns),
            ],
            scratch_shapes=[pltpu.VMEM((plan.taps, ROWS, plan.columns), jnp.float32)],
            compiler_params=_compiler_params(plan),
            interpret=interpret,
        )(_to_rows(part, plan, above=plan.half), weights)
        outputs.append(_from_rows(y, part))
    return jnp.concatenate(outputs), denominator[:height, :width]


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
    """Gradients of x and theta from one pass over the weights; g is the gradient of y."""
    plan = _plan(*x.shape, kernel_size)
    return _gradients(x, theta, y, denominator, g, plan, interpret, want=("x", "theta"))


def input_gradient(
    x: Float[Array, "n h w"],
    theta: Float[Array, "k h w"],
    denominator: Float[Array, "h w"],
    g: Float[Array, "n h w"],
    *,
    kernel_size: int,
    interpret: bool = False,
) -> Float[Array, "n h w"]:
    """The gradient of x alone: XLA could not drop half of the fused kernel."""
    plan = _plan(*x.shape, kernel_size)
    return _gradients(x, theta, x, denominator, g, plan, interpret, want=("x",))[0]


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
    """The gradient of theta alone."""
    plan = _plan(*x.shape, kernel_size)
    return _gradients(x, theta, y, denominator, g, plan, interpret, want=("theta",))[0]


def _gradients(x, theta, y, denominator, g, plan, interpret, *, want):
    # dx of a row is complete half a kernel later than the row itself: a few more steps emit it.
    steps = pl.cdiv(plan.height + plan.half, ROWS) if "x" in want else plan.tiles
    weights = _pad_weights(theta, plan)
    out_specs, out_shape = [], []
    scratch = [pltpu.VMEM((plan.taps, ROWS, plan.columns), jnp.float32)]
    if "x" in want:
        out_specs.append(_rows_spec(plan, steps))
        out_shape.append(_shape(steps * ROWS, plan.frames, plan.columns))
        scratch.append(pltpu.VMEM((plan.window, plan.frames, plan.columns), jnp.float32))
    if "theta" in want:
        out_specs.append(_weights_spec(plan))
        out_shape.append(_shape(plan.taps, plan.tiles * ROWS, plan.columns))
        scratch.append(pltpu.VMEM((plan.kernel_size, ROWS, SUBLANES, plan.columns), jnp.float32))
    results = []
    for x_part, y_part, g_part in zip(*(_split(a, plan) for a in (x, y, g)), strict=True):
        scaled = jnp.where(x_part != 0, g_part.astype(jnp.float32) / denominator, 0.0)
        arrays = [_to_rows(scaled, plan, above=0), weights]
        in_specs = [_rows_spec(plan, plan.tiles), _weights_spec(plan)]
        if "theta" in want:
            shared = jnp.sum(scaled * y_part.astype(jnp.float32), axis=0)
            arrays += [_to_rows(x_part, plan, above=plan.half), _pad_pixels(shared, plan)]
            in_specs += [_window_spec(plan), _pixels_spec(plan)]
        parts = list(
            pl.pallas_call(
                partial(_backward_kernel, plan=plan, want=want),
                grid=(steps,),
                in_specs=in_specs,
                out_specs=out_specs,
                out_shape=out_shape,
                scratch_shapes=scratch,
                compiler_params=_compiler_params(plan),
                interpret=interpret,
            )(*arrays)
        )
        if "x" in want:
            parts[0] = _from_rows(parts[0][plan.half :], x_part)
        results.append(parts)
    gathered = []
    if "x" in want:
        gathered.append(jnp.concatenate([parts[0] for parts in results]))
    if "theta" in want:
        total = sum(parts[-1] for parts in results)
        gathered.append(total[:, : plan.height, : plan.width])
    return tuple(gathered)


def _forward_kernel(x_ref, theta_ref, y_ref, denominator_ref, absolute_ref, *, plan):
    denominator = _take_absolute(theta_ref, absolute_ref, plan)
    denominator_ref[...] = denominator

    @pl.loop(0, plan.frames // plan.block)
    def _(block):
        at = pl.ds(pl.multiple_of(block * plan.block, plan.block), plan.block)

        def add_tap_column(dj, sums):
            sums = list(sums)
            for r in range(plan.window):
                shifted = _shift(x_ref[r, at, :], dj - plan.half, plan)
                for i in _rows_met_by(r, plan):
                    t = (r - i) * plan.kernel_size + dj
                    sums[i] += _spread(absolute_ref, t, i, plan) * shifted
            return tuple(sums)

        zero = jnp.zeros((plan.block, plan.columns), jnp.float32)
        sums = lax.fori_loop(0, plan.kernel_size, add_tap_column, (zero,) * ROWS)
        for i, total in enumerate(sums):
            seen = x_ref[i + plan.half, at, :] != 0
            y_ref[i, at, :] = jnp.where(seen, total / denominator[i : i + 1], 0.0)


def _backward_kernel(g_ref, theta_ref, *refs, plan, want):
    refs = list(refs)
    x_ref, shared_ref = (refs.pop(0), refs.pop(0)) if "theta" in want else (None, None)
    dx_ref = refs.pop(0) if "x" in want else None
    dtheta_ref = refs.pop(0) if "theta" in want else None
    absolute_ref = refs.pop(0)
    pending_ref = refs.pop(0) if "x" in want else None  # dx of the window, not yet complete
    product_ref = refs.pop(0) if "theta" in want else None
    k, half = plan.kernel_size, plan.half

    if pending_ref is not None:

        @pl.when(pl.program_id(0) == 0)
        def _():
            pending_ref[...] = jnp.zeros_like(pending_ref)

    @pl.when(pl.program_id(0) < plan.tiles)
    def _():
        _take_absolute(theta_ref, absolute_ref, plan)

        @pl.loop(0, k)
        def _(dj):
            if product_ref is not None:
                product_ref[...] = jnp.zeros_like(product_ref)

            @pl.loop(0, plan.frames // plan.block)
            def _(block):
                at = pl.ds(pl.multiple_of(block * plan.block, plan.block), plan.block)
                g = [g_ref[i, at, :] for i in range(ROWS)]
                for r in range(plan.window):
                    if product_ref is not None:
                        shifted = _shift(x_ref[r, at, :], dj - half, plan)
                        for i in _rows_met_by(r, plan):
                            # Sublanes are summed only once per tap, after the last frame.
                            product_ref[r - i, i] += _fold_frames(g[i] * shifted)
                    if pending_ref is not None:
                        total = jnp.zeros((plan.block, plan.columns), jnp.float32)
                        for i in _rows_met_by(r, plan):
                            weight = _spread(absolute_ref, (r - i) * k + dj, i, plan)
                            total += weight * g[i]
                        pending_ref[r, at, :] += _shift(total, half - dj, plan)

            if product_ref is not None:
                for di in range(k):
                    a = theta_ref[di * k + dj] + _identity(di * k + dj, plan)
                    slope = jnp.where(a > 0, 1.0, jnp.where(a < 0, -1.0, 0.0))
                    sums = jnp.sum(product_ref[di], axis=1)
                    dtheta_ref[di * k + dj] = slope * (sums - shared_ref[...])

    if pending_ref is not None:
        dx_ref[...] = pending_ref[:ROWS]
        for r in range(plan.window):  # upwards: every row is read before it is overwritten
            below = r + ROWS
            pending_ref[r] = (
                pending_ref[below] if below < plan.window else jnp.zeros_like(pending_ref[r])
            )


def _take_absolute(theta_ref, absolute_ref, plan):
    """Stores |a| of the step's weights; returns its sum over the taps."""

    def add(t, total):
        absolute = jnp.abs(theta_ref[t] + _identity(t, plan))
        absolute_ref[t] = absolute
        return total + absolute

    return lax.fori_loop(0, plan.taps, add, jnp.zeros((ROWS, plan.columns), jnp.float32))


def _spread(ref, t, i: int, plan):
    """Row i of tap t for every frame of a block; lane tile by lane tile the load spreads it."""
    tiles = [ref[t, i : i + 1, c : c + LANES] for c in range(0, plan.columns, LANES)]
    return jnp.concatenate([jnp.broadcast_to(tile, (plan.block, LANES)) for tile in tiles], axis=1)


def _identity(t, plan):
    return jnp.where(t == plan.taps // 2, jnp.float32(1), jnp.float32(0))


def _rows_met_by(r: int, plan) -> range:
    return range(max(0, r - plan.kernel_size + 1), min(ROWS, r + 1))


def _shift(values, offset, plan):
    """Column c of the result is column c + offset, zero outside the map (a rotation wraps)."""
    rotated = pltpu.roll(values, jnp.mod(-offset, plan.columns), 1)
    column = lax.broadcasted_iota(jnp.int32, values.shape, 1) + offset
    return jnp.where((column >= 0) & (column < plan.width), rotated, 0.0)


def _fold_frames(values):
    return sum(values[s : s + SUBLANES] for s in range(0, values.shape[0], SUBLANES))


class _Plan(NamedTuple):
    """The sizes that one call is compiled for."""

    kernel_size: int
    height: int
    width: int
    tiles: int  # of ROWS rows
    columns: int  # width, padded to whole lanes
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


def _plan(n: int, height: int, width: int, kernel_size: int) -> _Plan:
    columns, window = pl.cdiv(width, LANES) * LANES, ROWS + kernel_size - 1
    row_bytes = 4 * columns
    # theta and dtheta twice (double buffered), |a| and the products of one column of taps
    fixed = (5 * kernel_size**2 + kernel_size * SUBLANES) * ROWS * row_bytes
    # x twice, the pending dx once, g and dx twice
    per_frame = (3 * window + 4 * ROWS) * row_bytes
    fit = max(SUBLANES, (VMEM_BYTES - fixed) // per_frame)
    frames = pl.cdiv(max(n, 1), pl.cdiv(max(n, 1), fit))
    frames = pl.cdiv(frames, SUBLANES) * SUBLANES
    # 16 frames of 256 columns: ROWS sums of 4 registers each, half of the register file
    wide = columns > 2 * LANES or frames % (2 * SUBLANES)
    return _Plan(
        kernel_size=kernel_size,
        height=height,
        width=width,
        tiles=pl.cdiv(height, ROWS),
        columns=columns,
        frames=frames,
        block=SUBLANES if wide else 2 * SUBLANES,
        vmem_bytes=fixed + frames * per_frame + VMEM_SLACK,
    )


def _split(x, plan: _Plan) -> list[jax.Array]:
    """Frames of each call; no frames are one call of none, so that nothing is a special case."""
    return [x[start : start + plan.frames] for start in range(0, max(len(x), 1), plan.frames)]


def _to_rows(x, plan: _Plan, *, above: int):
    n, height, width = x.shape
    rows = jnp.transpose(x.astype(jnp.float32), (1, 0, 2))
    below = plan.tiles * ROWS - height + above
    return jnp.pad(rows, ((above, below), (0, plan.frames - n), (0, plan.columns - width)))


def _from_rows(rows, like):
    n, height, width = like.shape
    return jnp.transpose(rows[:height, :n, :width], (1, 0, 2)).astype(like.dtype)


def _pad_pixels(a, plan: _Plan):
    below, right = plan.tiles * ROWS - plan.height, plan.columns - plan.width
    return jnp.pad(a, [(0, 0)] * (a.ndim - 2) + [(0, below), (0, right)])


_pad_weights = _pad_pixels


def _window_spec(plan: _Plan) -> pl.BlockSpec:
    # Steps past the last tile, which only emit dx, see the last tile's blocks again.
    return pl.BlockSpec(
        (pl.Element(plan.window), pl.Element(plan.frames), pl.Element(plan.columns)),
        lambda step: (jnp.minimum(step, plan.tiles - 1) * ROWS, 0, 0),
    )


def _rows_spec(plan: _Plan, steps: int) -> pl.BlockSpec:
    return pl.BlockSpec(
        (ROWS, plan.frames, plan.columns), lambda step: (jnp.minimum(step, steps - 1), 0, 0)
    )


def _weights_spec(plan: _Plan) -> pl.BlockSpec:
    return pl.BlockSpec(
        (plan.taps, ROWS, plan.columns), lambda step: (0, jnp.minimum(step, plan.tiles - 1), 0)
    )


def _pixels_spec(plan: _Plan) -> pl.BlockSpec:
    return pl.BlockSpec((ROWS, plan.columns), lambda step: (jnp.minimum(step, plan.tiles - 1), 0))


def _shape(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _compiler_params(plan: _Plan) -> pltpu.CompilerParams:
    # In order: dx is carried from step to step.
    return pltpu.CompilerParams(
        dimension_semantics=("arbitrary",), vmem_limit_bytes=plan.vmem_bytes
    )
