"""Ridge: equal to dense algebra where that fits in memory, and held as strongly as data say."""

import jax.numpy as jnp
import numpy as np
import pytest

from glfa_jax.alignments import Group, ridge_global, ridge_local
from glfa_jax.alignments.protocol import apply_layer
from glfa_jax.alignments.ridge import STRENGTHS, Ridge
from glfa_jax.alignments.strength import best_strength
from glfa_jax.errors import InputError

SHAPE = (8, 10)
MASK = np.pad(np.ones((6, 8), bool), 1)
PIXELS = np.flatnonzero(MASK)
RNG = np.random.default_rng(0)
X, Y = (RNG.standard_normal((2, 30, *SHAPE)) * MASK).astype(np.float32)
FLAT_X, FLAT_Y = X.reshape(30, -1).astype(float), Y.reshape(30, -1).astype(float)


def test_the_local_part_is_a_dense_ridge_of_every_pixel_on_its_neighbours():
    strength, size = 0.3, 3
    found = ridge_local.solve_local(
        X, targets=Y, pixels=PIXELS, kernel_size=size, strength=strength
    )
    penalty = strength * np.square(X).sum() / MASK.sum()
    for row, pixel in zip(found, PIXELS, strict=True):
        y, x = divmod(int(pixel), SHAPE[1])
        around = X[:, y - 1 : y + 2, x - 1 : x + 2].reshape(30, 9).astype(float)
        gram = around.T @ around + penalty * np.eye(9)
        expected = np.linalg.solve(gram, around.T @ (Y[:, y, x] - X[:, y, x]))
        np.testing.assert_allclose(row, expected, atol=1e-5)
    weight = np.zeros((9, MASK.size), np.float32)
    weight[:, PIXELS] = found.T
    layer = ridge_local.LocalRidge(*SHAPE, size)
    made = apply_layer(layer, {"weight": weight.reshape(9, *SHAPE)}, jnp.asarray(X))
    (predicted,) = ridge_local.predictions(
        X, Y, X, pixels=PIXELS, kernel_size=size, strengths=(strength,)
    )
    np.testing.assert_allclose(np.asarray(made)[:, MASK], predicted, atol=1e-5)


@pytest.mark.parametrize("rank", [12, 30, 50])
def test_the_global_part_is_a_dense_ridge_of_the_leading_components(rank):
    strength = 0.5
    params = ridge_global.solve_global(X, targets=Y, rank=rank, strength=strength)
    u, s, vt = np.linalg.svd(FLAT_X, full_matrices=False)
    leading = (u[:, :rank] * s[:rank]) @ vt[:rank]
    penalty = strength * np.square(s).mean() * np.eye(MASK.size)
    matrix = np.linalg.solve(leading.T @ leading + penalty, leading.T @ (FLAT_Y - FLAT_X))
    new = RNG.standard_normal((5, *SHAPE)).astype(np.float32) * MASK
    made = apply_layer(ridge_global.GlobalRidge(*SHAPE, rank), params, jnp.asarray(new))
    flat = new.reshape(5, -1)
    expected = flat + flat @ vt[:rank].T @ vt[:rank] @ matrix
    np.testing.assert_allclose(np.asarray(made).reshape(5, -1), expected, atol=1e-4)
    (predicted,) = ridge_global.predictions(
        X, Y, new, pixels=PIXELS, rank=rank, strengths=(strength,)
    )
    np.testing.assert_allclose(np.asarray(made)[:, MASK], predicted, atol=1e-4)


@pytest.mark.parametrize("part", ["local", "global", "both"])
def test_a_mixture_is_undone_in_clips_that_were_not_seen(part):
    """Of a neighbour and of a distant pixel, with noise."""
    x = (RNG.standard_normal((160, 2, *SHAPE)) * MASK).astype(np.float32)
    mixed = 0.6 * x + 0.5 * np.roll(x, 1, -1) + 0.4 * x[..., ::-1, ::-1]
    y = ((mixed + 0.1 * RNG.standard_normal(x.shape)) * MASK).astype(np.float32)
    method = Ridge(part=part, kernel_size=3, rank=80)
    fitted = method.fit(x[:120], targets=y[:120], group=Group(y[None], MASK))
    made = np.asarray(apply_layer(method.layer(SHAPE), fitted.params, jnp.asarray(x[120:])))
    found = np.corrcoef(made[..., MASK].ravel(), y[120:][..., MASK].ravel())[0, 1]
    assert found > {"local": 0.85, "global": 0.95, "both": 0.95}[part]


def test_the_strength_is_that_which_predicts_the_other_half():
    """Of four things that one could do to the maps, one is right."""
    maps, targets = X.reshape(15, 2, *SHAPE), -X.reshape(15, 2, *SHAPE)

    def predict(own, wanted, new):
        assert {len(own), len(new)} == {14, 16}
        return [(factor * new).reshape(len(new), -1)[:, PIXELS] for factor in (1, 0, -1, 2)]

    found = best_strength(
        (9.0, 8.0, 7.0, 6.0), maps=maps, targets=targets, pixels=PIXELS, predict=predict
    )
    assert found == 7.0
    with pytest.raises(InputError, match="maps: hold 3 clips of 1 volumes, must hold at least two"):
        best_strength(
            STRENGTHS, maps=maps[:3, :1], targets=maps[:3, :1], pixels=PIXELS, predict=predict
        )


def test_an_even_kernel_has_no_middle():
    with pytest.raises(InputError, match="kernel_size is 4, must be odd"):
        Ridge(kernel_size=4)
