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
        assert {areas.names[i].partition(",")[0] for i in np.unique(areas.number[cortex])} == {side}
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


def test_pixels_are_of_the_area_they_are_drawn_from_and_some_of_none(flat, tmp_path):
    mesh, files, table = surfaces.fsaverage5(), [], {0: "???", 1: "V1_ROI", 2: "MT"}
    own = []
    for side, half in (("left", mesh.left), ("right", mesh.right)):
        keys = np.where(half.flat[:, 1] > 0, 1, 2)
        keys[half.flat[:, 1] < -40] = 0
        letter = side[0].upper()
        named = {key: name if key == 0 else f"{letter}_{name}" for key, name in table.items()}
        files.append(write_labels(tmp_path / f"{side}.label.gii", keys, named, side))
        own.append(keys)
    areas = labelled(files, flat=flat, mask=flat.mask)
    whole(areas, flat.mask)
    assert set(areas.names) == {"V1", "MT", NO_AREA}
    assert areas.source == "areas of left.label.gii and right.label.gii"
    wanted = np.array([NO_AREA, "V1", "MT"])[np.concatenate(own)]
    inside = np.flatnonzero(mesh.region)
    row, column = np.rint(flat.positions[inside]).astype(int).T
    drawn = areas.number[row, column]
    named = np.array(areas.names)[drawn]
    # All but where a border runs through a pixel.
    assert (named == wanted[inside])[drawn >= 0].mean() > 0.95


def test_labels_of_another_mesh_are_named(flat, tmp_path):
    files = [
        write_labels(tmp_path / f"{side}.label.gii", np.ones(7), {1: "V1"}, side)
        for side in ("left", "right")
    ]
    with pytest.raises(InputError, match=r"left\.label\.gii: labels 7 vertices"):
        labelled(files, flat=flat, mask=flat.mask)
