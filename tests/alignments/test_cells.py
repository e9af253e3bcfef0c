"""What is aligned cell by cell: known rotations and permutations, and cells that do not fit."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.stats import ortho_group

from glfa_jax.alignments import Group
from glfa_jax.alignments.cells import CellMixing, cells_of
from glfa_jax.alignments.procrustes import Procrustes, orthogonal_factor
from glfa_jax.alignments.protocol import apply_layer
from glfa_jax.alignments.transport import Transport, transported

SHAPE, CELL = (12, 16), 4  # whole cells, so that the first grid's lie within the map
MASK = np.pad(np.ones((10, 14), bool), 1)
RNG = np.random.default_rng(0)
MAPS = RNG.standard_normal((60, 2, *SHAPE)).astype(np.float32) * MASK
PLACES, INSIDE = cells_of(MASK, side=CELL)
WHOLE = np.flatnonzero(INSIDE[0].all(1))


def in_cells(matrix: np.ndarray) -> np.ndarray:
    """The maps with the pixels of every whole cell of the first grid mixed by a matrix."""
    flat = MAPS.reshape(-1, MASK.size).copy()
    for cell in PLACES[0, WHOLE]:
        flat[:, cell] = flat[:, cell] @ matrix
    return flat.reshape(MAPS.shape)


def mixing_of(method, targets: np.ndarray) -> np.ndarray:
    """Of the whole cells, (cells, pixels, pixels)."""
    fitted = method.fit(MAPS, targets=targets, group=Group(targets[None], MASK))
    return fitted.params["mixing"][0, WHOLE]


def test_a_rotation_is_found():
    rotation = ortho_group.rvs(CELL**2, random_state=0).astype(np.float32)
    found = mixing_of(Procrustes(cell=CELL), in_cells(rotation))
    # A target's pixels are standardised, which bends what is a rotation a little.
    np.testing.assert_allclose(found, np.broadcast_to(rotation, found.shape), atol=0.15)
    np.testing.assert_allclose(
        found @ found.mT, np.broadcast_to(np.eye(16), found.shape), atol=1e-4
    )


def test_the_orthogonal_factor_is_that_of_the_decomposition():
    matrices = RNG.standard_normal((5, 12, 12)).astype(np.float32)
    left, _, right = np.linalg.svd(matrices)
    np.testing.assert_allclose(orthogonal_factor(jnp.asarray(matrices)), left @ right, atol=1e-4)


def test_a_permutation_is_found():
    permutation = np.eye(CELL**2)[RNG.permutation(CELL**2)].astype(np.float32)
    found = mixing_of(Transport(cell=CELL), in_cells(permutation))
    assert found[:, permutation == 1].min() > 0.95


def test_the_plan_is_the_best_assignment_unless_entropy_counts():
    cost = RNG.random((9, 9)).astype(np.float32)
    inside = np.arange(9) < 7
    rows, columns = linear_sum_assignment(cost[:7, :7])
    cost[rows, columns] -= 0.3  # by far the best
    plan = np.asarray(transported(jnp.asarray(cost), jnp.asarray(inside), jnp.float32(0.02)))
    assert plan[rows, columns].min() > 0.95
    np.testing.assert_allclose(plan.sum(0), inside, atol=1e-5)
    np.testing.assert_allclose(plan.sum(1), inside, atol=5e-3)  # the last step was of columns
    assert not plan[7:].any()
    even = np.asarray(transported(jnp.asarray(cost), jnp.asarray(inside), jnp.float32(1e3)))
    np.testing.assert_allclose(even[:7, :7], 1 / 7, atol=1e-3)


def test_near_pixels_are_preferred_where_that_is_wanted():
    swapped = np.eye(CELL**2, dtype=np.float32)[::-1]
    found = mixing_of(Transport(cell=CELL, nearness=1e3), in_cells(swapped))
    assert found[:, np.eye(CELL**2) == 1].min() > 0.95


@pytest.mark.parametrize("side", [4, 5, 40])
def test_a_layer_mixes_the_pixels_of_its_cells(side):
    """Cells that do not divide the map, and one larger than it; first nothing is mixed."""
    layer = CellMixing(*SHAPE, side)
    places, inside = cells_of(np.ones(SHAPE, bool), side=side)
    eye = np.broadcast_to(np.eye(side**2, dtype=np.float32), (*places.shape, side**2))
    params = {"mixing": eye, "amplitude": {"gain": np.ones(SHAPE, np.float32)}}
    image = MAPS[0, 0]
    np.testing.assert_allclose(apply_layer(layer, params, jnp.asarray(image)), image, atol=1e-6)
    if side == 40:
        return
    mixing = RNG.standard_normal(eye.shape).astype(np.float32)
    expected = np.zeros(image.size)
    for grid in range(2):
        for cell, there, matrix in zip(places[grid], inside[grid], mixing[grid], strict=True):
            mixed = (image.ravel()[cell] * there) @ matrix
            expected[cell[there]] += mixed[there] / 2
    made = apply_layer(layer, params | {"mixing": mixing}, jnp.asarray(image))
    np.testing.assert_allclose(np.asarray(made).ravel(), expected, atol=1e-4)
