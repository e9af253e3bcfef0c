"""Norms and activation: their gradients are written by hand; against their definitions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glfa_jax.models.layers import GroupNorm, LayerNorm, gelu
from tests.gradients import draw, error, with_gradients


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 1e-2)])
def test_gelu(dtype: str, tolerance: float) -> None:
    x = jnp.linspace(-8, 8, 4001).astype(dtype)
    exact = x.astype(jnp.float32)
    found, slope = jax.jit(gelu)(x), jax.jit(jax.vmap(jax.grad(gelu)))(x)
    assert found.dtype == slope.dtype == dtype
    plain = jax.jit(jax.vmap(jax.value_and_grad(lambda x: jax.nn.gelu(x, approximate=False))))
    wanted, wanted_slope = plain(exact)
    np.testing.assert_allclose(found.astype(jnp.float32), wanted, atol=tolerance, rtol=tolerance)
    np.testing.assert_allclose(
        slope.astype(jnp.float32), wanted_slope, atol=tolerance, rtol=tolerance
    )


NORMS = {
    "layer": (LayerNorm(1e-3), nn.LayerNorm(1e-3, use_fast_variance=False)),
    "group, frames apart": (
        GroupNorm(3, 1e-3, pooled=2),
        nn.GroupNorm(3, epsilon=1e-3, reduction_axes=(-3, -2, -1), use_fast_variance=False),
    ),
    "group, frames pooled": (
        GroupNorm(3, 1e-3, pooled=3),
        nn.GroupNorm(3, epsilon=1e-3, use_fast_variance=False),
    ),
}


@pytest.mark.parametrize("norm", NORMS)
def test_norms_equal_those_of_linen(norm: str) -> None:
    ours, theirs = NORMS[norm]
    x, g, scale, bias = draw((2, 4, 5, 3, 6), (2, 4, 5, 3, 6), (6,), (6,))
    x = 3 + x  # an average that must be taken off
    variables = {"params": {"scale": scale, "bias": bias}}
    found, gradients = with_gradients(ours.apply, g, variables, x)
    wanted, linen = with_gradients(theirs.apply, g, variables, x)
    assert error(found, wanted) < 1e-5
    assert error(gradients, linen) < 1e-5
