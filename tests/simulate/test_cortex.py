import numpy as np
import pytest

from glfa_jax.data.surfaces import fsaverage5
from glfa_jax.simulate.cortex import smooth_field, visual_cortex


@pytest.fixture(scope="module")
def cortex():
    return visual_cortex()


def test_the_region_is_that_of_the_surfaces_left_first(cortex):
    np.testing.assert_array_equal(cortex.vertices, np.flatnonzero(fsaverage5().region))
    assert cortex.num_vertices == (10242, 10242)
    np.testing.assert_array_equal(cortex.side, np.where(cortex.vertices < 10242, -1, 1))


def test_canonical_coordinates_are_mm_forward_of_the_occipital_pole(cortex):
    surfaces = fsaverage5()
    pial = np.concatenate([surfaces.left.pial, surfaces.right.pial])[cortex.vertices]
    for side in (-1, 1):
        forward, front = cortex.canonical[cortex.side == side, 0], pial[cortex.side == side, 1]
        assert forward.min() == 0
        assert np.corrcoef(forward, front)[0, 1] > 0.5
        # Distances of the flat map are kept: the map is moved and mirrored only.
        flat = np.concatenate([surfaces.left.flat, surfaces.right.flat])[cortex.vertices]
        pairs = np.flatnonzero(cortex.side == side)[:200]
        np.testing.assert_allclose(
            np.linalg.norm(cortex.canonical[pairs[0]] - cortex.canonical[pairs], axis=1),
            np.linalg.norm(flat[pairs[0]] - flat[pairs], axis=1),
            atol=1e-9,
        )


def test_parts_follow_each_other_forward_smoothly_and_add_up_to_one(cortex):
    parts = cortex.parts(cortex.canonical)
    np.testing.assert_allclose(parts.sum(axis=1), 1, atol=1e-12)
    assert parts.min() >= 0
    centres = parts.T @ cortex.canonical[:, 0] / parts.sum(axis=0)
    assert centres[0] < centres[1] < centres[2]
    assert (parts.max(axis=0) > 0.98).all()
    assert (parts.mean(axis=0) > 0.2).all()
    line = np.stack([np.linspace(0, cortex.depth, 1000), np.zeros(1000)], axis=1)
    assert np.abs(np.diff(cortex.parts(line), axis=0)).max() < 0.02


def test_a_smooth_field_has_unit_variance_and_the_correlation_asked_for():
    rng = np.random.default_rng(0)
    places = rng.uniform(0, 200, size=(500, 2))
    field = smooth_field(rng, count=400, scale=8.0, waves=2048)
    here = field(places)
    assert abs(here.mean()) < 0.05
    assert abs(here.std() - 1) < 0.05
    for distance in (4.0, 8.0, 16.0):
        there = field(places + np.array([distance, 0.0]))
        found = np.mean(here * there) / np.mean(here**2)
        assert abs(found - np.exp(-(distance**2) / (2 * 8.0**2))) < 0.05


def test_slopes_are_those_of_the_field():
    rng = np.random.default_rng(0)
    field, places = smooth_field(rng, count=3, scale=8.0), rng.uniform(0, 99, size=(50, 2))
    step = 1e-4
    for axis, direction in enumerate(np.eye(2)):
        ahead, behind = (field(places + sign * step * direction) for sign in (1, -1))
        slopes = (ahead - behind) / (2 * step)
        np.testing.assert_allclose(field.slopes(places)[..., axis], slopes, atol=1e-7)


def test_smoothing_keeps_the_variance_and_the_hemispheres_apart(cortex):
    smoother = cortex.smoother(4.0)
    np.testing.assert_allclose(smoother.power(2).sum(axis=1), 1, rtol=1e-5)
    left = cortex.side < 0
    assert abs(smoother[left][:, ~left]).sum() == 0
    noise = smoother @ np.random.default_rng(0).standard_normal((len(cortex.side), 200))
    near = np.argsort(np.linalg.norm(cortex.canonical[left] - cortex.canonical[left][700], axis=1))
    correlation = np.corrcoef(noise[left][near[[0, 1, 1000]]])[0]
    assert correlation[1] > 0.7
    assert abs(correlation[2]) < 0.3
