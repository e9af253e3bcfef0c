"""Equal blocks in a loop: in 16 bits, kernels and their gradients are stacked in 16 bits."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glfa_jax.models.equal_blocks import run_equal
from tests.computed import computed

COUNT, WIDTH = 3, 5


class Block(nn.Module):
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (WIDTH,))  # computes in 32 bits
        y = nn.Dense(WIDTH, dtype=self.dtype, name="mix")(x * scale)
        return x + jnp.tanh(y).astype(x.dtype)


class Net(nn.Module):
    dtype: Any
    looped: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        blocks = [Block(self.dtype, name=f"blocks.{i}") for i in range(COUNT)]
        if self.looped:
            return run_equal(blocks, x)
        for block in blocks:
            x = block(x)
        return x


@pytest.fixture(scope="module")
def given() -> tuple[dict, jax.Array]:
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, WIDTH)), jnp.float32)
    params: Any = Net(jnp.float32).init(jax.random.key(0), x)["params"]
    return params, x


def gradients(dtype: Any, x: jax.Array, *, looped: bool) -> Any:
    net = Net(dtype, looped)
    return jax.grad(lambda params: jnp.square(net.apply({"params": params}, x)).mean())


@pytest.mark.parametrize(("dtype", "bound"), [(jnp.float32, 1e-6), (jnp.bfloat16, 2**-6)])
def test_as_one_after_the_other(dtype, bound, given):
    """In 16 bits up to a few roundings of 2^-9, which compilers do in different places."""
    params, x = given
    found, wanted = (gradients(dtype, x, looped=looped)(params) for looped in (True, False))
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert np.abs(ours - theirs).max() < bound * np.abs(theirs).max()


def test_stacks_of_kernels_have_16_bits(given):
    params, x = given
    program = jax.make_jaxpr(gradients(jnp.bfloat16, x, looped=True))(params)
    found = set(computed(program.jaxpr))
    stacks = {dtype for shape, dtype in found if shape == (COUNT, WIDTH, WIDTH)}
    assert stacks == {jnp.dtype(jnp.bfloat16)}
    assert ((COUNT, WIDTH), jnp.dtype(jnp.float32)) in found  # scales and biases
