"""Attention, norms, activation: their gradients are written by hand; against their definitions."""

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


def error(found, wanted) -> float:
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
    return max(float(jnp.abs(x.astype(jnp.float32) - y).max() / jnp.abs(y).max()) for x, y in pairs)


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
    found, pull = jax.vjp(lambda *x: attention(*x, **options), *given)
    wanted, pull_plain = jax.vjp(lambda *x: plain_attention(*x, **options), *exact)
    assert found.dtype == dtype
    assert error(found, wanted) < tolerance
    gradients = pull(g)
    assert {x.dtype for x in gradients} == {jnp.dtype(dtype)}
    assert error(gradients, pull_plain(g.astype(jnp.float32))) < tolerance


def test_large_scores_do_not_overflow() -> None:
    query, key, value = draw(*[(1, 4, HEADS, WIDTH)] * 3)
    found, pull = jax.vjp(attention, 30 * query, key, value)
    assert error(found, plain_attention(30 * query, key, value)) < 1e-4
    assert all(jnp.isfinite(x).all() for x in pull(found))


def test_dropout_of_attention_weights() -> None:
    given = draw(*[(1, 4, HEADS, WIDTH)] * 3)
    kept = attention(*given, dropout=lambda weights: weights)
    assert error(kept, plain_attention(*given)) < 1e-5
    assert float(jnp.abs(attention(*given, dropout=jnp.zeros_like)).max()) == 0


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 1e-2)])
def test_gelu(dtype: str, tolerance: float) -> None:
    x = jnp.linspace(-8, 8, 4001).astype(dtype)
    exact = x.astype(jnp.float32)
    found, slope = gelu(x), jax.vmap(jax.grad(gelu))(x)
    assert found.dtype == slope.dtype == dtype
    plain = jax.vmap(jax.value_and_grad(lambda x: jax.nn.gelu(x, approximate=False)))
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
    found, pull = jax.vjp(ours.apply, variables, x)
    wanted, pull_linen = jax.vjp(theirs.apply, variables, x)
    assert error(found, wanted) < 1e-5
    assert error(pull(g), pull_linen(g)) < 1e-5
