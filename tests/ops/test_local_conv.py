"""The locally connected layer against a loop over pixels and taps in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from glfa_jax.ops import local_conv as module

SEEDS = st.integers(0, 2**32 - 1)
KERNELS = st.sampled_from([1, 3, 5])


def local_conv(x, theta, *, kernel_size: int) -> jax.Array:
    return module.local_conv(jnp.asarray(x), jnp.asarray(theta), kernel_size=kernel_size)


def slow(x: np.ndarray, theta: np.ndarray, kernel_size: int) -> np.ndarray:
    """SPEC §2.2, written out for one map."""
    height, width = x.shape
    half = kernel_size // 2
    y = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            if x[i, j] == 0:
                continue
            taps = theta[i, j].astype(np.float64).reshape(kernel_size, kernel_size).copy()
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
    theta = rng.standard_normal((height, width, kernel_size**2))
    return x.astype(np.float32), theta.astype(np.float32)


@settings(max_examples=12, deadline=None)
@given(seed=SEEDS, height=st.integers(1, 6), width=st.integers(1, 6), kernel_size=KERNELS)
def test_every_pixel_is_the_weighted_neighbourhood(seed, height, width, kernel_size):
    x, theta = example(seed, height=height, width=width, kernel_size=kernel_size)
    ours = local_conv(x, theta, kernel_size=kernel_size)
    np.testing.assert_allclose(ours, slow(x, theta, kernel_size), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch", [(), (0,), (1,), (3,), (2, 0), (2, 3), (2, 1, 2)])
def test_any_axes_may_come_first(batch):
    x, theta = example(0, height=4, width=5, kernel_size=3, batch=batch)
    ours = local_conv(x, theta, kernel_size=3)
    assert ours.shape == x.shape
    expected = [slow(one, theta, 3) for one in x.reshape(-1, 4, 5)]
    np.testing.assert_allclose(ours, np.array(expected).reshape(x.shape), rtol=1e-5, atol=1e-6)


def test_subjects_may_have_weights_of_their_own():
    rng = np.random.default_rng(1)
    x, _ = example(1, height=5, width=4, kernel_size=3, batch=(2, 3))
    theta = rng.standard_normal((3, 5, 4, 9)).astype(np.float32)
    per_subject = jax.vmap(
        lambda x, theta: local_conv(x, theta, kernel_size=3), in_axes=(1, 0), out_axes=1
    )
    ours = per_subject(x, theta)
    for clip in range(2):
        for subject in range(3):
            expected = slow(x[clip, subject], theta[subject], 3)
            np.testing.assert_allclose(ours[clip, subject], expected, rtol=1e-5, atol=1e-6)


def test_an_empty_cortex_gives_zeros_and_finite_gradients():
    _, theta = example(2, height=5, width=5, kernel_size=3)
    x = np.zeros((2, 5, 5), np.float32)
    y, pullback = jax.vjp(lambda x, theta: local_conv(x, theta, kernel_size=3), x, theta)
    assert not y.any()
    for gradient in pullback(jnp.ones_like(y)):
        assert not gradient.any()


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_no_weights_are_the_identity(kernel_size):
    x, theta = example(3, height=6, width=3, kernel_size=kernel_size, batch=(2,))
    ours = local_conv(x, np.zeros_like(theta), kernel_size=kernel_size)
    np.testing.assert_array_equal(ours, x)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, kernel_size=KERNELS)
def test_no_pixel_leaves_the_range_of_its_neighbourhood(seed, kernel_size):
    """A convex combination, where zeros outside the map count too."""
    x, theta = example(seed, height=5, width=4, kernel_size=kernel_size)
    ours = np.asarray(local_conv(x, theta, kernel_size=kernel_size))
    half = kernel_size // 2
    padded = np.pad(x, half)
    around = np.lib.stride_tricks.sliding_window_view(padded, (kernel_size, kernel_size))
    inside = x != 0
    assert (ours[inside] <= around.max((-2, -1))[inside] + 1e-6).all()
    assert (ours[inside] >= around.min((-2, -1))[inside] - 1e-6).all()
    assert not ours[~inside].any()


@settings(max_examples=3, deadline=None)
@given(seed=SEEDS, kernel_size=KERNELS)
def test_gradients_are_those_of_finite_differences(seed, kernel_size):
    with jax.enable_x64(True):
        x, theta = example(seed, height=4, width=3, kernel_size=kernel_size, batch=(2,))
        # The mask and the absolute value have kinks: differences must not step over them.
        taps = theta.astype(np.float64)
        taps[..., kernel_size**2 // 2] += 1
        taps = np.where(np.abs(taps) < 0.05, 0.05, taps)
        taps[..., kernel_size**2 // 2] -= 1
        inside = x != 0
        maps = np.where(np.abs(x) < 0.05, 0.05, x).astype(np.float64)

        def call(pixels, theta):
            return local_conv(pixels * inside, theta, kernel_size=kernel_size)

        check_grads(call, (maps, taps), order=1, modes=["fwd", "rev"], atol=1e-6, rtol=1e-6)


def test_half_precision_stays_half_and_near():
    x, theta = example(4, height=6, width=6, kernel_size=3, batch=(2,))
    ours = local_conv(jnp.asarray(x, jnp.bfloat16), theta, kernel_size=3)
    assert ours.dtype == jnp.bfloat16
    expected = np.array([slow(one, theta, 3) for one in x])
    np.testing.assert_allclose(np.asarray(ours, np.float32), expected, atol=0.03)


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
def test_what_does_not_fit_is_refused_in_one_sentence(kernel_size, shape, taps, message):
    with pytest.raises(ValueError, match="must be") as error:
        local_conv(np.ones((2, *shape)), np.zeros((5, 5, taps)), kernel_size=kernel_size)
    assert str(error.value) == message
