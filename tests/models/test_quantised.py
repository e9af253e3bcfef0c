"""Kernels of blocks in few bits: rounded as written here by hand, and read by the loop."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from glfa_jax import config
from glfa_jax.errors import InputError
from glfa_jax.models import lora
from glfa_jax.models.quantised import KERNELS, Quantised, quantised, whole
from glfa_jax.models.stacked import Stack, stacked
from glfa_jax.training.sharding import make_mesh, place_params, put_back, set_apart
from tests.convert.test_pretrained import assert_same
from tests.models.test_stacked import COUNT, WIDTH, Net, given  # noqa: F401

# QLoRA's table (arXiv 2305.14314, appendix E).
NF4 = [
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
]


def of_one(kernel: np.ndarray, kind: str) -> np.ndarray:
    kept = quantised({"blocks.*": {"kernel": Stack((kernel,))}}, kind=kind)
    return np.asarray(whole(kept)["blocks.*"]["kernel"])[0]


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(128, 3), (7, 5), (3, 12, 2)])
def test_8_bits_are_the_nearest_of_256_steps_of_each_output(shape):
    kernel = drawn(*shape)
    found = of_one(kernel, "int8")
    # The outermost steps are half a step from the largest weight.
    step = np.abs(kernel).max(tuple(range(kernel.ndim - 1))) / 127.5
    steps = found / step
    np.testing.assert_allclose(steps, steps.round(), atol=1e-4)
    assert np.all(np.abs(found - kernel) <= 0.5001 * step)
    assert np.abs(found - kernel).max() > 0.4 * step.min()


@pytest.mark.parametrize(("shape", "tile"), [((128, 3), 64), ((160, 2), 40), ((3, 7, 2), 7)])
def test_4_bits_are_the_nearest_value_of_the_table(shape, tile):
    """tile: inputs with a scale of their own; taps of a convolution share it."""
    kernel = drawn(*shape)
    parts = kernel.reshape(-1, shape[-2] // tile, tile, shape[-1])  # taps, tiles, inputs, outputs
    most = np.abs(parts).max((0, 2), keepdims=True)
    nearest = np.abs((parts / most)[..., None] - NF4).argmin(-1)
    wanted = (np.take(NF4, nearest) * most).reshape(shape)
    np.testing.assert_allclose(of_one(kernel, "nf4"), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_the_model_is_that_of_the_rounded_weights(given, kind, remat):  # noqa: F811
    """And so are the gradients of updates beside them."""
    params, x = given
    made = lora.init_lora(params, patterns=[r"to_out\.0/kernel$"], rank=2, key=jax.random.key(1))
    updates = jax.tree.map(lambda leaf: leaf + 0.1, made)
    rounded = {
        path: of_one(np.asarray(leaf), kind) if path[-2:] == ("to_out.0", "kernel") else leaf
        for path, leaf in flatten_dict(params).items()
    }
    kept = quantised(stacked(params, lists=["blocks"]), kind=kind)
    assert isinstance(kept["blocks.*"]["to_out.0"]["kernel"], Quantised)
    assert not isinstance(kept["first.0"]["kernel"], Quantised)

    def loss(updates: dict, params: dict) -> jax.Array:
        both = lora.beside(params, updates, scale=0.5)
        return jnp.square(Net(remat=remat).apply({"params": both}, x)).sum()

    wanted = jax.value_and_grad(loss)(updates, unflatten_dict(rounded))
    found = jax.jit(jax.value_and_grad(loss))(updates, jax.tree.map(np.asarray, kept))
    assert abs(wanted[0] - loss(updates, params)) > 1e-4
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_shapes_are_rounded_as_arrays_are(given, kind):  # noqa: F811
    params, _ = given
    arrays = quantised(stacked(params, lists=["blocks"]), kind=kind)
    shapes = quantised(stacked(jax.eval_shape(lambda: params), lists=["blocks"]), kind=kind)
    described = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)  # noqa: E731
    assert described(shapes) == described(arrays)
    kernel = arrays["blocks.*"]["to_out.0"]["kernel"]
    assert kernel.shape == (COUNT, WIDTH, WIDTH)
    values, scales = jax.tree.leaves(kernel)
    assert scales.dtype == jnp.float32
    bytes_of_a_row = {"int8": WIDTH, "nf4": -(-WIDTH // 2)}[kind]
    assert values.nbytes == COUNT * WIDTH * bytes_of_a_row


def test_what_it_needs_is_one_sentence(given, monkeypatch):  # noqa: F811
    params, _ = given
    monkeypatch.setitem(sys.modules, "qwix", None)
    with pytest.raises(InputError, match=r"frozen_kernels needs qwix; pip install .*quantised"):
        quantised(stacked(params, lists=["blocks"]), kind="int8")


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_on_the_devices_they_take_few_bits(given, kind):  # noqa: F811
    """Scales that are set apart keep 32 bits where others have 16."""
    params, x = given
    kept = quantised(stacked(params, lists=["blocks"]), kind=kind)
    apart = set_apart(kept, [KERNELS])
    placed = place_params(
        apart, make_mesh(config.MeshSize()), copy=False, from_bytes=0, dtype=jnp.bfloat16
    )
    assert placed["first.0"]["bias"].dtype == jnp.bfloat16
    kernel = put_back(placed)["blocks.*"]["to_out.0"]["kernel"]
    assert_same(kernel, kept["blocks.*"]["to_out.0"]["kernel"])
    # Ahead of time, as the training loop compiles its step.
    given_them = ({"params": put_back(placed)}, x)
    found = jax.jit(Net().apply).lower(*given_them).compile()(*given_them)
    wanted = Net().apply({"params": jax.tree.map(np.asarray, kept)}, x)
    np.testing.assert_allclose(found, wanted, rtol=0.02, atol=0.02)
