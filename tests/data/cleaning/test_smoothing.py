"""Smoothing along the cortex, on fsaverage5."""

from dataclasses import replace

import numpy as np
import pytest

from glfa_jax.data import DataError, flatmap
from glfa_jax.data.cleaning.smoothing import FULL_WIDTH, smoother
from glfa_jax.data.signals import Pixels
from glfa_jax.data.surfaces import fsaverage5

WIDTH = 12.0  # mm; the mesh has edges of 3


@pytest.fixture(scope="module")
def smooth():
    vertices = np.flatnonzero(fsaverage5().region)[::5]
    return vertices, smoother(fsaverage5(), vertices, width=WIDTH)


def test_a_constant_stays_and_hemispheres_do_not_mix(smooth):
    vertices, matrix = smooth
    left = fsaverage5().left.num_vertices
    sides = np.repeat([1.0, 7.0], left)
    np.testing.assert_allclose(matrix @ sides, np.where(vertices < left, 1, 7), rtol=1e-12)


def test_its_width_is_what_was_asked_for(smooth):
    """Inside the region, over straight distances: those along edges are somewhat longer."""
    vertices, matrix = smooth
    side = fsaverage5().left
    points = np.mean([side.white, side.pial], axis=0)
    inner = side.num_vertices
    spread = []
    for row, vertex in enumerate(vertices[vertices < inner][10:40], start=10):
        weights = matrix[[row]].toarray()[0, :inner]
        near = np.flatnonzero(weights)
        squared = ((points[near] - points[vertex]) ** 2).sum(axis=1)
        spread.append((weights[near] * squared).sum() / 2)
    found = FULL_WIDTH * np.sqrt(np.median(spread))
    assert 0.7 * WIDTH < found < 1.05 * WIDTH


def test_the_wall_is_never_drawn_on(smooth):
    _, matrix = smooth
    walls = np.concatenate([~fsaverage5().left.on_flat, ~fsaverage5().right.on_flat])
    assert not np.isin(np.flatnonzero(walls), matrix.indices).any()


def test_pixels_take_smoothing_in_with_their_weights():
    flat = flatmap.build(fsaverage5(), map_size=32)
    plain = Pixels.of(flat)
    made = Pixels.of(flat, smoother=lambda v: smoother(fsaverage5(), v, width=WIDTH))
    assert made.digest != plain.digest
    assert len(made.columns) > len(plain.columns)
    np.testing.assert_allclose(made.weights.sum(axis=1), 1, rtol=1e-5)
    values = np.random.default_rng(0).normal(size=sum(flat.sides))
    rough, even = (each.weights @ values[each.columns] for each in (plain, made))
    assert even.std() < 0.5 * rough.std()


def test_without_a_surface_it_is_said():
    mesh = fsaverage5()
    bare = replace(mesh, left=replace(mesh.left, white=None, pial=None))
    with pytest.raises(DataError, match=r"smooth_mm: .* need data\.surfaces\.pial or white"):
        smoother(bare, np.array([5]), width=4.0)
