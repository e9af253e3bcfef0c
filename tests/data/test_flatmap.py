"""The flat map: both directions, geometry, sides."""

import numpy as np
import pytest

from glfa_jax.data import flatmap
from glfa_jax.data.surfaces import fsaverage5

SURFACES = fsaverage5()


@pytest.fixture(scope="module", params=[32, 64, 128])
def cortex(request):
    return flatmap.build(SURFACES, raster=request.param)


def smooth_pattern():
    """Waves of some 100 mm on each hemisphere, different on both."""
    halves = [
        np.sin(side.flat[:, 0] / 17 + phase) * np.cos(side.flat[:, 1] / 19)
        for side, phase in ((SURFACES.left, 0.3), (SURFACES.right, 2.0))
    ]
    return np.concatenate(halves)


def test_round_trip_keeps_a_smooth_pattern(cortex):
    if cortex.raster < 64:
        pattern = np.concatenate([SURFACES.left.flat[:, 1], SURFACES.right.flat[:, 0]])
    else:
        pattern = smooth_pattern()
    back = cortex.to_surface(cortex.to_map(pattern))
    region = SURFACES.region
    assert np.corrcoef(back[region], pattern[region])[0, 1] > 0.99
    assert not back[~region].any()


def test_zero_outside_the_mask_and_a_mean_inside(cortex):
    ones = np.ones((2, 3, SURFACES.num_vertices), np.float32)
    picture = cortex.to_map(ones)
    assert picture.shape == (2, 3, cortex.raster, cortex.raster)
    np.testing.assert_allclose(picture, np.broadcast_to(cortex.mask, picture.shape), atol=1e-6)
    assert 0.45 < cortex.mask.mean() < 0.9


def test_sides_never_swap(cortex):
    left_only = np.concatenate([np.ones(10_242), np.zeros(10_242)])
    left, right = cortex.to_map(left_only) > 0, cortex.to_map(1 - left_only) > 0
    assert not (left & right).any()
    assert np.nonzero(left)[1].max() < np.nonzero(right)[1].min() - 1
    assert left.sum() == pytest.approx(right.sum(), rel=0.2)
    back = cortex.to_surface(left.astype(np.float32))
    region = SURFACES.region
    np.testing.assert_allclose(back[region], left_only[region], atol=1e-6)


def test_dorsal_is_up(cortex):
    height = np.concatenate([SURFACES.left.inflated[:, 2], SURFACES.right.inflated[:, 2]])
    picture = cortex.to_map(height)
    rows = np.nonzero(cortex.mask)[0]
    assert np.corrcoef(rows, picture[cortex.mask])[0, 1] < -0.7


def test_a_vertex_appears_where_its_position_says(cortex):
    pattern = np.zeros(SURFACES.num_vertices)
    rows, columns = np.indices(cortex.mask.shape)
    for vertex in np.flatnonzero(SURFACES.region)[::500]:
        pattern[:] = 0
        pattern[vertex] = 1
        picture = cortex.to_map(pattern)
        if picture.sum() > 0:
            distance = np.hypot(
                rows - cortex.positions[vertex, 0], columns - cortex.positions[vertex, 1]
            )
            assert distance[picture > 0].max() * cortex.pixel_mm < 8


def test_too_small_a_raster_and_a_wrong_length_are_refused(cortex):
    with pytest.raises(ValueError, match="at least 16"):
        flatmap.build(SURFACES, raster=8)
    with pytest.raises(ValueError, match="must have length 20484, has 7"):
        cortex.to_map(np.zeros(7))
