"""The fsaverage5 surfaces and the rule for the visual region."""

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from glfa_jax.data.surfaces import fsaverage5, triangle_areas

HEMISPHERES = [fsaverage5().left, fsaverage5().right]
both = pytest.mark.parametrize("hemisphere", HEMISPHERES, ids=["left", "right"])


def test_has_the_vertices_of_fsaverage5():
    surfaces = fsaverage5()
    assert surfaces.left.num_vertices == surfaces.right.num_vertices == 10_242
    assert surfaces.num_vertices == len(surfaces.region) == 20_484


def test_left_and_right_are_on_their_own_side():
    left, right = HEMISPHERES
    assert left.pial[:, 0].mean() < -20
    assert right.pial[:, 0].mean() > 20


@both
def test_region_is_posterior_cortex_of_a_useful_size(hemisphere):
    assert 2_000 < hemisphere.region.sum() < 3_500
    assert hemisphere.inflated[hemisphere.region, 1].max() < -40
    # The occipital pole, the rearmost cortex that the flat surface kept, belongs to it.
    on_flat = np.unique(hemisphere.faces)
    pole = on_flat[hemisphere.pial[on_flat, 1].argmin()]
    assert hemisphere.region[pole]


@both
def test_region_is_one_disc_without_holes(hemisphere):
    faces = hemisphere.region_faces
    sides = np.unique(np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0)
    vertices = np.unique(faces)
    assert len(vertices) == hemisphere.region.sum()
    graph = coo_array((np.ones(len(sides)), sides.T), shape=(10_242, 10_242))
    _, piece = connected_components(graph, directed=False)
    assert len(np.unique(piece[vertices])) == 1
    assert len(vertices) - len(sides) + len(faces) == 1  # Euler characteristic of a disc


@both
def test_no_triangle_is_torn_stretched_or_folded(hemisphere):
    corners = hemisphere.flat[hemisphere.faces]
    edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=-1)
    assert edges.max() <= 8
    assert triangle_areas(hemisphere.flat, hemisphere.faces).min() > 0
