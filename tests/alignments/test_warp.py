"""Warp: what the layer does with a displacement, and whether a known one is found and undone."""

import jax.numpy as jnp
import numpy as np
import pytest

from glfa_jax.alignments import Group, warping
from glfa_jax.alignments.protocol import apply_layer
from glfa_jax.alignments.warp import Warp
from glfa_jax.errors import InputError
from glfa_jax.evaluation.displacement import undone
from tests.alignments import moved
from tests.alignments.moved import LEFT, MASK, SIDE

SHAPE = (SIDE, SIDE)
METHOD = Warp(grid=6)
IMAGES = np.random.default_rng(0).standard_normal((3, *SHAPE)).astype(np.float32)


def params(nodes: np.ndarray) -> dict:
    gain = np.ones(SHAPE, np.float32)
    cortex = warping.hemispheres(MASK)
    return {"displacement": nodes, "cortex": cortex, "amplitude": {"gain": gain}}


def warped(nodes: np.ndarray, maps: np.ndarray) -> np.ndarray:
    return np.asarray(apply_layer(METHOD.layer(SHAPE), params(nodes), jnp.asarray(maps)))


def test_without_displacement_it_is_the_identity_on_the_cortex():
    np.testing.assert_array_equal(warped(np.zeros((2, 2, 6, 6)), IMAGES), IMAGES * MASK)


def test_the_gap_divides_the_hemispheres_where_it_is_not_in_the_middle():
    np.testing.assert_array_equal(warping.hemispheres(MASK), [MASK & LEFT, MASK & ~LEFT])
    filled = warping.hemispheres(np.ones(SHAPE, bool))
    assert filled[0].sum() == filled[1].sum() == SIDE**2 / 2


def test_signals_come_from_where_the_shift_says():
    nodes = np.stack([np.full((6, 6), x, np.float32) for x in (1.5, -0.75, -2.25, 0.5)])
    nodes = nodes.reshape(2, 2, 6, 6)
    shift = METHOD.shift(params(nodes), maps_shape=SHAPE)
    np.testing.assert_allclose(
        shift[MASK & LEFT], np.full((440, 2), (1.5, -0.75))[: (MASK & LEFT).sum()], rtol=1e-5
    )
    ramps = np.indices(SHAPE).astype(np.float32)
    found = np.moveaxis(warped(nodes, ramps) - ramps, 0, -1)
    inside = np.zeros(SHAPE, bool)
    inside[12:20, 5:14] = inside[12:20, 22:27] = True
    np.testing.assert_allclose(found[inside], shift[inside], atol=1e-4)
    assert not shift[~MASK].any()


def test_nothing_crosses_between_hemispheres_nor_comes_from_off_the_cortex():
    nodes = 8 * np.random.default_rng(1).standard_normal((2, 2, 6, 6))
    before = warped(nodes, IMAGES)
    assert not before[:, ~MASK].any()
    elsewhere = ~(MASK & LEFT)
    after = warped(nodes, IMAGES + 100 * elsewhere)
    np.testing.assert_array_equal(after[:, MASK & LEFT], before[:, MASK & LEFT])
    assert np.abs(after - before)[:, MASK & ~LEFT].min() > 90  # every weight sums to one


@pytest.mark.parametrize("kind", ["paired", "unlabelled"])
def test_a_smooth_displacement_is_undone(kind):
    world = moved.make()
    targets = world.same.mean(0) if kind == "paired" else None
    fitted = METHOD.fit(world.maps, targets=targets, group=Group(world.other, MASK))
    shifts = np.stack([METHOD.shift(fitted.params, maps_shape=SHAPE), np.zeros((*SHAPE, 2))])
    truth = np.stack([world.displacement, np.zeros((*SHAPE, 2))])
    assert 0.8 < undone(shifts, truth, mask=MASK, pairs=[(0, 1)]) < 1.2
    aligned = np.asarray(apply_layer(METHOD.layer(SHAPE), fitted.params, jnp.asarray(world.maps)))
    before, after = (
        np.square(maps - world.same.mean(0))[..., MASK].mean() for maps in (world.maps, aligned)
    )
    assert after < 0.5 * before


def test_without_pairs_it_asks_for_a_group():
    maps = np.random.default_rng(0).standard_normal((4, 2, *SHAPE)) * MASK
    with pytest.raises(InputError, match="group: has no maps, but warp is fitted to those"):
        METHOD.fit(maps, targets=None, group=Group(np.zeros((0, *maps.shape)), MASK))
