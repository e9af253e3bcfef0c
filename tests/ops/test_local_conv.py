"""The locally connected layer, every implementation, against a loop over pixels and taps."""

from functools import cache, partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from glfa_jax.ops import local_conv as module
from glfa_jax.ops import local_conv_tiled
from glfa_jax.ops.local_conv import Box, bounding_box

SEEDS = st.integers(0, 2**32 - 1)
KERNELS = st.sampled_from([1, 3, 5])
SIZES = st.sampled_from([1, 2, 5, 9])  # few, for every shape is compiled
IMPLEMENTATIONS = ["reference", "tiled"]
every_implementation = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)


@cache
def _jitted(kernel_size: int, implementation: Any, box: Box | None):
    return jax.jit(
        partial(module.local_conv, kernel_size=kernel_size, implementation=implementation, box=box)
    )


def local_conv(x, theta, *, kernel_size: int, implementation: str = "tiled", box=None) -> jax.Array:
    return _jitted(kernel_size, implementation, box)(jnp.asarray(x), jnp.asarray(theta))


def slow(x: np.ndarray, theta: np.ndarray, kernel_size: int) -> np.ndarray:
    """SPEC §2.2, written out for one map."""
    height, width = x.shape
    half = kernel_size // 2
    y = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            if x[i, j] == 0:
                continue
            taps = theta[:, i, j].astype(np.float64).reshape(kernel_size, kernel_size)
            taps[half, half] += 1
            weights = np.abs(taps) / np.abs(taps).sum()
            for di in range(kernel_size):
                for dj in range(kernel_size):
                    row, column = i + di - half, j + dj - half
                    if 0 <= row < height and 0 <= column < width:
                        y[i, j] += weights[di, dj] * x[row, column]
    return y


def example(seed: int, *, height: int, width: int, kernel_size: int, batch: tuple = ()):
    """Maps with holes, and weights far from the identity."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((*batch, height, width)) * (rng.random((height, width)) > 0.3)
    theta = rng.standard_normal((kernel_size**2, height, width))
    return x.astype(np.float32), theta.astype(np.float32)


@every_implementation
@settings(max_examples=12, deadline=None)
@given(seed=SEEDS, height=SIZES, width=SIZES, kernel_size=KERNELS)
def test_every_pixel_is_the_weighted_neighbourhood(
    seed, height, width, kernel_size, implementation
):
    x, theta = example(seed, height=height, width=width, kernel_size=kernel_size)
    ours = local_conv(x, theta, kernel_size=kernel_size, implementation=implementation)
    np.testing.assert_allclose(ours, slow(x, theta, kernel_size), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("batch", "height", "width", "kernel_size"),
    [((90,), 7, 6, 3), ((30,), 37, 5, 5), ((1,), 85, 4, 3), ((2,), 70, 3, 13)],
)
def test_tiles_that_do_not_divide_the_map(batch, height, width, kernel_size):
    """Many frames, few rows a tile; rows left over; a kernel larger than the map."""
    x, theta = example(5, height=height, width=width, kernel_size=kernel_size, batch=batch)
    both = [
        jax.vjp(
            partial(local_conv, kernel_size=kernel_size, implementation=implementation), x, theta
        )
        for implementation in IMPLEMENTATIONS
    ]
    cotangent = np.random.default_rng(6).standard_normal(x.shape).astype(np.float32)
    for ours, expected in zip(*((y, *pull(cotangent)) for y, pull in both), strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * scale)


@every_implementation
@pytest.mark.parametrize("batch", [(), (0,), (1,), (3,), (2, 0), (2, 3), (2, 1, 2)])
def test_any_axes_may_come_first(batch, implementation):
    x, theta = example(0, height=4, width=5, kernel_size=3, batch=batch)
    ours = local_conv(x, theta, kernel_size=3, implementation=implementation)
    assert ours.shape == x.shape
    expected = [slow(one, theta, 3) for one in x.reshape(-1, 4, 5)]
    np.testing.assert_allclose(ours, np.array(expected).reshape(x.shape), rtol=1e-5, atol=1e-6)


@every_implementation
def test_subjects_may_have_weights_of_their_own(implementation):
    rng = np.random.default_rng(1)
    x, _ = example(1, height=5, width=4, kernel_size=3, batch=(2, 3))
    theta = rng.standard_normal((3, 9, 5, 4)).astype(np.float32)
    one = partial(module.local_conv, kernel_size=3, implementation=implementation)
    per_subject = jax.jit(jax.vmap(one, in_axes=(1, 0), out_axes=1))
    ours, pull = jax.vjp(per_subject, x, theta)
    cotangent = rng.standard_normal(x.shape).astype(np.float32)
    dx, dtheta = pull(cotangent)
    for subject in range(3):
        for clip in range(2):
            expected = slow(x[clip, subject], theta[subject], 3)
            np.testing.assert_allclose(ours[clip, subject], expected, rtol=1e-5, atol=1e-6)
        _, pull = jax.vjp(
            partial(local_conv, kernel_size=3, implementation="reference"),
            x[:, subject],
            theta[subject],
        )
        own = pull(cotangent[:, subject])
        np.testing.assert_allclose(dx[:, subject], own[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(dtheta[subject], own[1], rtol=1e-4, atol=1e-5)


def test_a_batch_may_be_mapped_over():
    x, theta = example(7, height=5, width=4, kernel_size=3, batch=(3, 2))
    mapped = jax.vmap(lambda x: module.local_conv(x, jnp.asarray(theta), kernel_size=3))(x)
    np.testing.assert_allclose(mapped, local_conv(x, theta, kernel_size=3), rtol=1e-6, atol=1e-6)


@every_implementation
def test_an_empty_cortex_gives_zeros_and_finite_gradients(implementation):
    _, theta = example(2, height=5, width=5, kernel_size=3)
    x = np.zeros((2, 5, 5), np.float32)
    y, pullback = jax.vjp(
        partial(local_conv, kernel_size=3, implementation=implementation), x, theta
    )
    assert not y.any()
    for gradient in pullback(jnp.ones_like(y)):
        assert not gradient.any()


@every_implementation
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_no_weights_are_the_identity(kernel_size, implementation):
    x, theta = example(3, height=6, width=3, kernel_size=kernel_size, batch=(2,))
    ours = local_conv(
        x, np.zeros_like(theta), kernel_size=kernel_size, implementation=implementation
    )
    np.testing.assert_array_equal(ours, x)


@every_implementation
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, kernel_size=KERNELS)
def test_no_pixel_leaves_the_range_of_its_neighbourhood(seed, kernel_size, implementation):
    """A convex combination, where zeros outside the map count too."""
    x, theta = example(seed, height=5, width=4, kernel_size=kernel_size)
    ours = np.asarray(local_conv(x, theta, kernel_size=kernel_size, implementation=implementation))
    half = kernel_size // 2
    padded = np.pad(x, half)
    around = np.lib.stride_tricks.sliding_window_view(padded, (kernel_size, kernel_size))
    inside = x != 0
    assert (ours[inside] <= around.max((-2, -1))[inside] + 1e-6).all()
    assert (ours[inside] >= around.min((-2, -1))[inside] - 1e-6).all()
    assert not ours[~inside].any()


@every_implementation
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_gradients_are_those_of_finite_differences(seed, kernel_size, implementation):
    with jax.enable_x64(True):
        x, theta = example(seed, height=4, width=3, kernel_size=kernel_size, batch=(2,))
        # The mask and the absolute value have kinks: differences must not step over them.
        taps = theta.astype(np.float64)
        taps[kernel_size**2 // 2] += 1
        taps = np.where(np.abs(taps) < 0.05, 0.05, taps)
        taps[kernel_size**2 // 2] -= 1
        inside = x != 0
        maps = np.where(np.abs(x) < 0.05, 0.05, x).astype(np.float64)

        @jax.jit
        def call(pixels, theta):
            return module.local_conv(
                pixels * inside, theta, kernel_size=kernel_size, implementation=implementation
            )

        modes = ["fwd", "rev"] if implementation == "reference" else ["rev"]
        check_grads(call, (maps, taps), order=1, modes=modes, atol=1e-6, rtol=1e-6)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, shape=st.sampled_from([(7, 5), (3, 9)]), kernel_size=st.sampled_from([3, 13]))
def test_the_fast_gradients_are_the_reference_s_in_double_precision(seed, shape, kernel_size):
    height, width = shape
    x, theta = example(seed, height=height, width=width, kernel_size=kernel_size, batch=(3,))
    cotangent = np.random.default_rng(seed).standard_normal(x.shape)
    y, pull = jax.vjp(partial(local_conv, kernel_size=kernel_size), x, theta)
    ours = (y, *pull(cotangent.astype(np.float32)))
    with jax.enable_x64(True):
        y, pull = jax.vjp(
            partial(local_conv, kernel_size=kernel_size, implementation="reference"),
            x.astype(np.float64),
            theta.astype(np.float64),
        )
        expected = (y, *pull(cotangent))
    for found, wanted in zip(ours, expected, strict=True):
        limit = 1e-5 * max(1.0, float(np.abs(wanted).max()))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=limit)


@every_implementation
def test_a_weight_of_exactly_zero_has_no_gradient(implementation):
    """Where |a| has a kink, as PyTorch says."""
    x, _ = example(12, height=4, width=4, kernel_size=3, batch=(2,))
    layer = partial(local_conv, kernel_size=3, implementation=implementation)
    _, pull = jax.vjp(layer, x, np.zeros((9, 4, 4), np.float32))
    gradient = np.asarray(pull(jnp.ones_like(x))[1])
    assert not np.delete(gradient, 4, axis=0).any()


def test_a_gradient_that_nobody_asks_for_costs_nothing():
    x, theta = example(8, height=16, width=16, kernel_size=5, batch=(2,))
    loss = partial(module.local_conv, kernel_size=5)

    def loops(argnums) -> int:
        gradient = jax.jit(jax.grad(lambda *a: loss(*a).sum(), argnums=argnums))
        text = gradient.lower(x, theta).compile().as_text() or ""
        return text.count("while(")

    assert 0 < loops(0) < loops((0, 1))
    assert 0 < loops(1) < loops((0, 1))


@every_implementation
def test_half_precision_stays_half_and_near(implementation):
    x, theta = example(4, height=6, width=6, kernel_size=3, batch=(2,))
    ours = local_conv(
        jnp.asarray(x, jnp.bfloat16), theta, kernel_size=3, implementation=implementation
    )
    assert ours.dtype == jnp.bfloat16
    expected = np.array([slow(one, theta, 3) for one in x])
    np.testing.assert_allclose(np.asarray(ours, np.float32), expected, atol=0.03)


def test_half_precision_sums_in_single():
    """With float32 sums only the input's and the result's rounding are left."""
    x, theta = example(4, height=8, width=8, kernel_size=13, batch=(2,))
    half = np.asarray(jnp.asarray(x, jnp.bfloat16), np.float32)
    ours = np.asarray(local_conv(jnp.asarray(x, jnp.bfloat16), theta, kernel_size=13), np.float32)
    expected = np.array([slow(one, theta, 13) for one in half])
    np.testing.assert_allclose(ours, expected, rtol=2**-8, atol=1e-6)


@every_implementation
def test_within_a_box_the_layer_is_the_same(implementation):
    x, theta = example(9, height=20, width=24, kernel_size=5, batch=(2,))
    mask = np.zeros((20, 24), bool)
    mask[3:11, 9:14] = True
    x = x * mask
    box = bounding_box(mask)
    cropped = partial(local_conv, kernel_size=5, implementation=implementation, box=box)
    whole = partial(local_conv, kernel_size=5, implementation=implementation)
    ours, pull = jax.vjp(cropped, x, theta)
    expected, pull_all = jax.vjp(whole, x, theta)
    np.testing.assert_allclose(ours, expected, atol=1e-6)
    cotangent = np.random.default_rng(0).standard_normal(x.shape).astype(np.float32)
    (dx, dtheta), (dx_all, dtheta_all) = pull(cotangent), pull_all(cotangent)
    np.testing.assert_allclose(dx * mask, dx_all * mask, atol=1e-5)
    np.testing.assert_allclose(dtheta, dtheta_all, atol=1e-5)


@pytest.mark.parametrize(
    ("rows", "columns", "box"),
    [
        ((3, 11), (9, 14), (0, 8, 16, 8)),
        ((8, 16), (16, 24), (8, 16, 8, 8)),
        ((19, 20), (0, 1), (16, 0, 4, 8)),
        ((0, 20), (0, 24), (0, 0, 20, 24)),
        ((0, 0), (0, 0), (0, 0, 8, 8)),
    ],
)
def test_the_box_lies_around_the_mask_on_multiples_of_eight(rows, columns, box):
    mask = np.zeros((20, 24), bool)
    mask[slice(*rows), slice(*columns)] = True
    assert bounding_box(mask) == Box(*box)


@pytest.mark.parametrize(
    ("kernel_size", "shape", "taps", "message"),
    [
        (4, (5, 5), 16, "kernel_size: must be odd and positive, got 4"),
        (-3, (5, 5), 9, "kernel_size: must be odd and positive, got -3"),
        (3, (5, 5), 25, "theta: 25 taps a pixel, must be 9 for kernel_size 3"),
        (3, (5, 6), 9, "x: maps are (5, 6), must be (5, 5) as theta is"),
        (3, (4, 5), 9, "x: maps are (4, 5), must be (5, 5) as theta is"),
    ],
)
def test_what_does_not_fit_is_rejected_in_one_sentence(kernel_size, shape, taps, message):
    with pytest.raises(ValueError, match="must be") as error:
        local_conv(np.ones((2, *shape)), np.zeros((taps, 5, 5)), kernel_size=kernel_size)
    assert str(error.value) == message


def test_a_box_outside_the_map_and_an_unknown_implementation_are_rejected():
    x, theta = example(0, height=5, width=5, kernel_size=3)
    with pytest.raises(ValueError, match=r"box: \(0, 0, 6, 5\) must lie within maps of \(5, 5\)"):
        local_conv(x, theta, kernel_size=3, box=Box(0, 0, 6, 5))
    with pytest.raises(ValueError, match="implementation: 'fast', must be auto"):
        local_conv(x, theta, kernel_size=3, implementation="fast")


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere there is a kernel")
def test_a_kernel_is_rejected_where_there_is_none():
    x, theta = example(0, height=5, width=5, kernel_size=3)
    with pytest.raises(ValueError, match="no kernel for this platform, must be tiled"):
        local_conv(x, theta, kernel_size=3, implementation="kernel")


def test_a_kernel_that_fails_or_computes_wrongly_is_not_trusted():
    """What "auto" asks before it takes a device's kernel."""

    def forward(x, theta, *, kernel_size):
        y, denominator = local_conv_tiled.forward(x, theta, kernel_size=kernel_size)
        return 1.01 * y, denominator

    def fails(x, theta, *, kernel_size):
        raise NotImplementedError("no such instruction")

    tiled: Any = local_conv_tiled

    def kernels(forward) -> Any:
        made: Any = ModuleType("kernels")
        made.forward = forward
        made.input_gradient = tiled.input_gradient
        made.weight_gradient = tiled.weight_gradient
        return made

    with pytest.warns(UserWarning, match="computes wrongly"):
        assert not module._runs(kernels(forward))
    with pytest.warns(UserWarning, match="does not run here: no such instruction"):
        assert not module._runs(kernels(fails))
    assert jax.jit(lambda x: x * module._runs(tiled))(2.0) == 2.0


@pytest.mark.gpu
def test_on_the_gpu_the_kernel_is_the_reference_at_the_published_size():
    x, theta = example(10, height=256, width=256, kernel_size=13, batch=(8,))
    cotangent = np.random.default_rng(11).standard_normal(x.shape).astype(np.float32)
    both = []
    for implementation in ("kernel", "reference"):
        layer = partial(local_conv, kernel_size=13, implementation=implementation)
        with jax.default_matmul_precision("highest"):
            y, pull = jax.vjp(layer, x, theta)
            both.append((y, *pull(cotangent)))
    for ours, expected in zip(*both, strict=True):
        limit = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(ours, expected, rtol=0, atol=limit)
