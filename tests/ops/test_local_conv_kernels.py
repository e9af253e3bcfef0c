"""The locally connected layer's device kernels, interpreted, against loops and jax's gradient."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glfa_jax.ops import local_conv_gpu, local_conv_tpu

MODULES = [pytest.param(local_conv_tpu, id="tpu"), pytest.param(local_conv_gpu, id="gpu")]
# frames, height, width, kernel: odd sizes, several tiles, maps smaller than the kernel
SIZES = [(1, 3, 7, 1), (2, 3, 6, 5), (3, 2, 3, 13)]
# Compiling the interpreted kernels is nearly all of the time that these tests take.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": "0"})


@pytest.fixture(autouse=True)
def small_tiles(request, monkeypatch):
    """Tiny tiles, so that tiny maps cross every border and little has to be compiled."""
    if "the_device" not in request.node.name:
        monkeypatch.setattr(local_conv_tpu, "ROWS", 2)
        monkeypatch.setattr(local_conv_gpu, "ROWS", 2)
        monkeypatch.setattr(local_conv_gpu, "WARP", 4)
        monkeypatch.setattr(local_conv_gpu, "FRAMES", 1)
        monkeypatch.setattr(local_conv_gpu, "FRAME_WARPS", 2)


def slow(x: np.ndarray, theta: np.ndarray, kernel_size: int):
    """SPEC §2.2 in float64, written out for every pixel and tap: the output and the denominator."""
    _, height, width = x.shape
    half = kernel_size // 2
    a = theta.astype(np.float64).copy()
    a[kernel_size**2 // 2] += 1
    a = np.abs(a)
    y = np.zeros(x.shape)
    for i in range(height):
        for j in range(width):
            for t in range(kernel_size**2):
                row, column = i + t // kernel_size - half, j + t % kernel_size - half
                if 0 <= row < height and 0 <= column < width:
                    y[:, i, j] += a[t, i, j] * x[:, row, column]
    return (x != 0) * y / a.sum(0), a.sum(0)


def plain(x, theta, *, kernel_size: int):
    """The same in jax, for its gradient."""
    _, height, width = x.shape
    half = kernel_size // 2
    a = jnp.abs(theta.at[kernel_size**2 // 2].add(1.0))
    padded = jnp.pad(x, ((0, 0), (half, half), (half, half)))
    y = jnp.zeros(x.shape, jnp.float32)
    for t in range(kernel_size**2):
        i, j = divmod(t, kernel_size)
        y += a[t] * padded[:, i : i + height, j : j + width]
    return (x != 0) * y / a.sum(0)


def example(n: int, height: int, width: int, kernel_size: int):
    """Maps with holes, weights far from the identity and of both signs, a gradient."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, height, width)) * (rng.random((n, height, width)) > 0.3)
    theta = rng.standard_normal((kernel_size**2, height, width))
    g = rng.standard_normal(x.shape)
    return x.astype(np.float32), theta.astype(np.float32), g.astype(np.float32)


def everything(module, kernel_size: int):
    """All that a module computes, as one program."""
    options = {"kernel_size": kernel_size, "interpret": True}

    def run(x, theta, g):
        y, denominator = module.forward(x, theta, **options)
        scaled = jnp.where(x != 0, g.astype(jnp.float32) / denominator, 0)
        dx = module.input_gradient(scaled, theta, **options)
        dtheta = module.weight_gradient(x, theta, y, scaled, **options)
        return {"y": y, "denominator": denominator, "dx": dx, "dtheta": dtheta}

    return run


def check(module, n: int, height: int, width: int, kernel_size: int) -> None:
    x, theta, g = example(n, height, width, kernel_size)
    ours = quick_jit(everything(module, kernel_size))(x, theta, g)
    y, denominator = slow(x, theta, kernel_size)
    _, pull = jax.vjp(partial(plain, kernel_size=kernel_size), x, theta)
    dx, dtheta = pull(jnp.asarray(g))
    expected = {"y": y, "denominator": denominator, "dx": dx, "dtheta": dtheta}
    for name, value in ours.items():
        assert value.shape == expected[name].shape, name
        assert value.dtype == jnp.float32, name
        scale = np.abs(expected[name]).max(initial=1.0)
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=3e-6 * scale, err_msg=name)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("module", MODULES)
def test_agrees_with_loops_and_with_the_gradient_of_jax(module, size, monkeypatch):
    if size[-1] > 3:
        monkeypatch.setattr(module, "ROWS", 1)
    check(module, *size)


def test_more_lanes_than_one_register_on_tpu():
    check(local_conv_tpu, 1, 2, 130, 3)


def test_more_frames_than_one_call_holds_on_tpu(monkeypatch):
    monkeypatch.setattr(local_conv_tpu, "VMEM_BYTES", 0)  # calls of eight frames
    monkeypatch.setattr(local_conv_tpu, "ROWS", 1)
    check(local_conv_tpu, 10, 2, 3, 3)


def test_more_frames_than_one_block_holds_on_tpu():
    check(local_conv_tpu, 25, 3, 4, 3)


def test_more_taps_than_one_program_holds_on_gpu(monkeypatch):
    monkeypatch.setattr(local_conv_gpu, "TAP_WARPS", 2)
    monkeypatch.setattr(local_conv_gpu, "TAP_SUMS", 4)  # one row a program
    monkeypatch.setattr(local_conv_gpu, "ROWS", 1)
    check(local_conv_gpu, 3, 2, 5, 3)


@pytest.mark.parametrize("module", MODULES)
def test_tiles_as_large_as_on_the_device(module):
    check(module, 2, 9, 10, 3)


@pytest.mark.parametrize("module", MODULES)
def test_no_frames(module):
    x, theta, g = example(0, 2, 5, 3)
    ours = quick_jit(everything(module, 3))(x, theta, g)
    assert ours["y"].shape == ours["dx"].shape == (0, 2, 5)
    np.testing.assert_allclose(ours["denominator"], slow(x, theta, 3)[1], rtol=1e-6)
    np.testing.assert_array_equal(ours["dtheta"], np.zeros_like(theta))


@pytest.mark.parametrize("module", MODULES)
def test_empty_maps_and_bfloat16(module):
    x, theta, g = example(2, 3, 6, 3)
    x[0] = 0
    x, theta, g = (jnp.asarray(a, jnp.bfloat16) for a in (x, theta, g))
    ours = quick_jit(everything(module, 3))(x, theta, g)
    types = {name: value.dtype for name, value in ours.items()}
    full, half = jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)
    assert types == {"y": half, "denominator": full, "dx": full, "dtheta": half}
    full, weights = (jnp.asarray(a, jnp.float32) for a in (x, theta))
    y, pull = jax.vjp(partial(plain, kernel_size=3), full, weights)
    dx, dtheta = pull(jnp.asarray(g, jnp.float32))
    for name, expected in {"y": y, "dx": dx, "dtheta": dtheta}.items():
        value = np.asarray(ours[name], np.float32)
        # eight bits of mantissa
        np.testing.assert_allclose(value, expected, rtol=0, atol=4e-3 * np.abs(expected).max())
    assert not np.any(ours["y"][0])
    assert not np.any(ours["dx"][0])


@pytest.mark.parametrize("module", MODULES)
def test_weights_per_subject(module, monkeypatch):
    monkeypatch.setattr(module, "ROWS", 1)
    maps = [example(2, 2, 5, 3) for _ in range(2)]
    x, theta, g = (np.stack([one[i] * (1 + s) for s, one in enumerate(maps)]) for i in range(3))
    ours = quick_jit(jax.vmap(everything(module, 3)))(x, theta, g)
    for s in range(2):
        y, pull = jax.vjp(partial(plain, kernel_size=3), x[s], theta[s])
        dx, dtheta = pull(jnp.asarray(g[s]))
        for name, expected in {"y": y, "dx": dx, "dtheta": dtheta}.items():
            np.testing.assert_allclose(ours[name][s], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_lowers_for_the_device(platform, dtype):
    """As far as a machine without the device can go; the full-size layer, 13 taps a side."""
    module = {"cuda": local_conv_gpu, "tpu": local_conv_tpu}[platform]

    def run(x, theta, g):
        y, denominator = module.forward(x, theta, kernel_size=13)
        scaled = g / denominator
        dx = module.input_gradient(scaled, theta, kernel_size=13)
        return dx, module.weight_gradient(x, theta, y, scaled, kernel_size=13)

    x = jax.ShapeDtypeStruct((10, 256, 256), dtype)
    theta = jax.ShapeDtypeStruct((169, 256, 256), jnp.float32)
    lowered = jax.jit(run).trace(x, theta, x).lower(lowering_platforms=(platform,))
    call = {"cuda": "__gpu$xla.gpu.triton", "tpu": "tpu_custom_call"}[platform]
    assert lowered.as_text().count(call) == 3
