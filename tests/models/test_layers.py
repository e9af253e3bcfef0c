"""Attention, norms, activation: their gradients are written by hand; against their definitions."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glfa_jax.models.layers import GroupNorm, LayerNorm, attention, gelu

HEADS, WIDTH = 2, 5


def plain_attention(query, key, value, mask=None):
    scores = jnp.einsum("...qhd,...khd->...hqk", query, key) * WIDTH**-0.5
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    return jnp.einsum("...hqk,...khd->...qhd", jax.nn.softmax(scores, axis=-1), value)


def draw(*shapes: tuple[int, ...], dtype=jnp.float32) -> list[jax.Array]:
    rng = np.random.default_rng(0)
    return [jnp.asarray(2 * rng.standard_normal(shape), dtype) for shape in shapes]


def with_gradients(function, cotangent, *given):
    """The function and its gradients as one program: op by op, compiling takes most of the time."""

    def run(cotangent, *given):
        found, pull = jax.vjp(function, *given)
        return found, pull(cotangent)

    return jax.jit(run)(cotangent, *given)


def error(found, wanted) -> float:
    leaves = [[np.asarray(x, np.float32) for x in jax.tree.leaves(y)] for y in (found, wanted)]
    return max(float(np.abs(x - y).max() / np.abs(y).max()) for x, y in zip(*leaves, strict=True))


# The last has a query that sees nothing: all its keys count alike.
MASKS = {
    "none": None,
    "some": np.tri(4, 6, dtype=bool),
    "a row": np.tri(4, 6, -1, dtype=bool),
}


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 3e-2)])
@pytest.mark.parametrize("mask", MASKS)
def test_attention(mask: str, dtype: str, tolerance: float) -> None:
    keys = (3, 2, 6, HEADS, WIDTH)
    *given, g = draw((3, 2, 4, HEADS, WIDTH), keys, keys, (3, 2, 4, HEADS, WIDTH), dtype=dtype)
    exact = [x.astype(jnp.float32) for x in given]
    options = {"mask": MASKS[mask]}
    found, gradients = with_gradients(partial(attention, **options), g, *given)
    wanted, plain = with_gradients(
        partial(plain_attention, **options), g.astype(jnp.float32), *exact
    )
    assert found.dtype == dtype
    assert error(found, wanted) < tolerance
    assert {x.dtype for x in gradients} == {jnp.dtype(dtype)}
    assert error(gradients, plain) < tolerance


def test_large_scores_do_not_overflow() -> None:
    query, key, value = draw(*[(1, 4, HEADS, WIDTH)] * 3)
    wanted = jax.jit(plain_attention)(30 * query, key, value)
    found, gradients = with_gradients(attention, wanted, 30 * query, key, value)
    assert error(found, wanted) < 1e-4
    assert all(np.isfinite(x).all() for x in gradients)


def test_dropout_of_attention_weights() -> None:
    given = draw(*[(1, 4, HEADS, WIDTH)] * 3)
    kept = attention(*given, dropout=lambda weights: weights)
    assert error(kept, plain_attention(*given)) < 1e-5
    assert float(jnp.abs(attention(*given, dropout=jnp.zeros_like)).max()) == 0


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
