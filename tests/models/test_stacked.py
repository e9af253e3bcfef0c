"""Blocks' parameters in one array each: the same model, and the same gradients of what trains."""

import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from glfa_jax.models import lora
from glfa_jax.models.equal_blocks import run_equal
from glfa_jax.models.layers import Dense
from glfa_jax.models.stacked import Stack, stacked

COUNT, WIDTH = 3, 5


class Block(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.LayerNorm(name="norm")(x)
        return x + jnp.tanh(Dense(WIDTH, name="to_out.0")(y))


class Net(nn.Module):
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Dense(WIDTH, name="first.0")(x)
        blocks = [Block(name=f"blocks.{i}") for i in range(COUNT)]
        return run_equal(blocks, x, remat=self.remat)


@pytest.fixture(scope="module")
def given() -> tuple[dict, jax.Array]:
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, WIDTH)), jnp.float32)
    params: Any = Net().init(jax.random.key(0), x)["params"]
    return params, x


def paths(tree: dict) -> set[str]:
    return {"/".join(path) for path in flatten_dict(tree)}


def test_only_lists_that_are_named_are_stacked(given):
    params, _ = given
    found = stacked({"denoiser": params}, lists=["blocks"])
    assert paths(found["denoiser"]) == {
        "first.0/kernel",
        "first.0/bias",
        "blocks.*/norm/scale",
        "blocks.*/norm/bias",
        "blocks.*/to_out.0/kernel",
        "blocks.*/to_out.0/bias",
    }
    assert paths(stacked(params, lists=[])) == paths(params)


def test_what_a_block_trains_is_stacked_of_none(given):
    params, _ = given
    flat = flatten_dict(params)
    path = ("blocks.2", "to_out.0", "bias")
    trained = unflatten_dict({path: flat.pop(path)})
    found = paths(stacked(unflatten_dict(flat), lists=["blocks"], trained=trained))
    assert {"blocks.0/to_out.0/bias", "blocks.1/to_out.0/bias"} < found
    assert "blocks.*/to_out.0/kernel" in found


def test_a_stack_is_read_when_numpy_asks():
    parts = [np.full((2, 3), i, np.float32) for i in range(COUNT)]
    stack = Stack(tuple(parts))
    assert (stack.shape, stack.dtype, stack.ndim) == ((COUNT, 2, 3), np.float32, 3)
    assert (stack.size, stack.nbytes) == (6 * COUNT, 24 * COUNT)
    np.testing.assert_array_equal(np.asarray(stack), np.stack(parts))
    assert np.asarray(stack, np.float16).dtype == np.float16


def test_shapes_are_stacked_as_arrays_are(given):
    params, _ = given
    shapes = stacked(jax.eval_shape(lambda: params), lists=["blocks"])
    arrays = jax.tree.map(np.asarray, stacked(params, lists=["blocks"]))
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, arrays)


@pytest.mark.parametrize("trained", ["^$", "bias$", "(kernel|bias)$", "^blocks.0", "^blocks.2"])
def test_the_model_is_the_same_whatever_part_is_stacked(given, trained):
    """Parameters of some kinds train, or those of the first or the last block."""
    params, x = given
    flat = flatten_dict(params)
    own = {path: leaf for path, leaf in flat.items() if re.search(trained, "/".join(path))}
    rest = unflatten_dict({path: leaf for path, leaf in flat.items() if path not in own})
    found = stacked(rest, lists=["blocks"], trained=unflatten_dict(own))
    kept = jax.tree.map(np.asarray, found)

    def loss(own: dict, others: dict) -> jax.Array:
        both = unflatten_dict(flatten_dict(others) | own)
        return jnp.square(Net().apply({"params": both}, x)).sum()

    wanted = jax.value_and_grad(loss)(own, rest)
    found = jax.value_and_grad(loss)(own, kept)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def test_updates_lie_beside_stacked_kernels(given):
    params, x = given
    made = lora.init_lora(params, patterns=[r"to_out\.0/kernel$"], rank=2, key=jax.random.key(1))
    updates = jax.tree.map(lambda leaf: leaf + 0.1, made)
    kept = jax.tree.map(np.asarray, stacked(params, lists=["blocks"]))

    def loss(updates: dict, params: dict) -> jax.Array:
        whole = lora.beside(params, updates, scale=0.5)
        return jnp.square(Net().apply({"params": whole}, x)).sum()

    wanted = jax.value_and_grad(loss)(updates, params)
    found = jax.value_and_grad(loss)(updates, kept)
    assert abs(wanted[0] - loss(made, params)) > 1e-3
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def test_updates_of_another_shape_or_block_are_rejected(given):
    params, _ = given
    kept = jax.tree.map(np.asarray, stacked(params, lists=["blocks"]))
    made = lora.init_lora(params, patterns=[r"to_out\.0/kernel$"], rank=2, key=jax.random.key(1))
    wider = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.zeros((2, WIDTH + 1)) if path[-1].key == "up" else leaf, made
    )
    with pytest.raises(ValueError, match=r"blocks\.\d/to_out\.0/kernel makes"):
        lora.beside(kept, wider, scale=1.0)
    with pytest.raises(ValueError, match="is no parameter of this model"):
        lora.beside(kept, {"blocks.0": {"to_in": made["blocks.0"]["to_out.0"]}}, scale=1.0)
