"""Areas: every pixel of the cortex in one, squares within a hemisphere, areas of a parcellation."""

import numpy as np
import pytest

from glfa_jax.alignments.warping import hemispheres
from glfa_jax.data import flatmap, surfaces
from glfa_jax.errors import InputError
from glfa_jax.explain.areas import NO_AREA, Areas, labelled, of_numbers, squares
from tests.data.meshes import write_labels


@pytest.fixture(scope="module")
def flat() -> flatmap.FlatMap:
    return flatmap.build(surfaces.fsaverage5(), map_size=64)


def whole(areas: Areas, mask: np.ndarray) -> None:
    np.testing.assert_array_equal(areas.number >= 0, mask)
    assert areas.pixels.min() > 0
    assert areas.shares.sum() == pytest.approx(1)
    assert len(areas.pixels) == len(areas.names) == len(set(areas.names))


@pytest.mark.parametrize("count", [1, 7, 60, 10**6])
def test_squares_cover_the_cortex_within_hemispheres(flat, count):
    areas = squares(flat.mask, count=count)
    whole(areas, flat.mask)
    for cortex, side in zip(hemispheres(flat.mask) > 0, ("left", "right"), strict=True):
        assert {areas.names[i].split()[0] for i in np.unique(areas.number[cortex])} == {side}
    if count == 60:
        assert 40 <= len(areas.names) <= 80
        assert areas.pixels.min() >= 0.25 * flat.mask.sum() / 60 * 0.8
    if count == 10**6:
        assert (areas.pixels == 1).all()


def test_squares_of_one_hemisphere_or_of_a_few_pixels():
    mask = np.zeros((16, 16), bool)
    mask[3:5, 1:3] = True
    whole(squares(mask, count=2), mask)
    whole(squares(mask, count=100), mask)


def test_sums_and_drawing_are_of_each_area():
    areas = of_numbers(np.array([[7, 7], [3, -1]]), mask=np.array([[1, 1], [1, 0]], bool))
    assert areas.names == ("3", "7")
    maps = np.array([[[1.0, 2], [4, 8]]])
    np.testing.assert_array_equal(areas.sums(maps), [[4, 3]])
    np.testing.assert_array_equal(areas.drawn(np.array([5.0, 6])), [[6, 6], [5, 0]])


@pytest.mark.parametrize("number", [np.zeros((2, 3), int), np.zeros((2, 2))])
def test_numbers_that_are_none_are_a_sentence(number):
    with pytest.raises(InputError, match=r"areas: .* must be whole numbers of the maps' size"):
        of_numbers(number, mask=np.ones((2, 2), bool))
