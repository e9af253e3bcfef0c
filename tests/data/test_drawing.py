"""How scans become maps, where no surface is: the same maps, and what is no drawing rejected."""

import numpy as np
import pytest

from glfa_jax import config
from glfa_jax.convert.directory import DirectoryError
from glfa_jax.data import DataError, readers
from glfa_jax.data.drawing import Drawing
from glfa_jax.data.surfaces import fsaverage5
from glfa_jax.errors import InputError
from glfa_jax.trained import drawn
from tests.data.conftest import settings
from tests.data.scans import write_nifti

PLAIN = config.Cleaning()
SMOOTH = config.Cleaning(smooth_mm=4.0, polynomial=2)
VOLUME = "MNI152NLin2009cAsym"


def made(tmp_path, cleaning=PLAIN, **changes) -> tuple[Drawing, np.ndarray]:
    data = settings(tmp_path, tmp_path / "none.zarr", map_size=16, **changes)
    return Drawing.of(data, cleaning=cleaning)


@pytest.mark.parametrize(("space", "cleaning"), [("fsaverage5", SMOOTH), (VOLUME, PLAIN)])
def test_what_is_kept_is_what_was_made(tmp_path, space, cleaning):
    drawing, mask = made(tmp_path, cleaning, space=space)
    drawn.save(tmp_path / "kept", drawing)
    back = drawn.load(tmp_path / "kept", mask=mask)
    assert back is not None
    assert (back.space, back.kind, back.cleaning) == (drawing.space, drawing.kind, cleaning)
    values = np.random.default_rng(0).normal(size=(len(drawing.pixels.columns), 3))
    for one, other in (
        (back.pixels.weights @ values, drawing.pixels.weights @ values),
        (back.pixels.columns, drawing.pixels.columns),
        (back.pixels.walls, drawing.pixels.walls),
    ):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(back.pixels.weights.sum(axis=1), 1, rtol=1e-5)
    assert back.pixels.sides == drawing.pixels.sides == (10_242, 10_242)


def test_volumes_are_sampled_without_surfaces_as_with_them(tmp_path):
    drawing, _ = made(tmp_path, space=VOLUME)
    affine = np.diag([40.0, 40, 40, 1])
    affine[:3, 3] = (-80, -110, -60)
    values = np.random.default_rng(0).normal(1000, 10, (5, 6, 5, 1))
    write_nifti(tmp_path / "a.nii.gz", values, affine=affine, step=2)
    [with_them] = readers.volume(tmp_path / "a.nii.gz", fsaverage5())
    [without] = readers.volume(tmp_path / "a.nii.gz", drawing.mesh)
    columns = drawing.pixels.columns
    assert np.isfinite(with_them[:, columns]).all()
    np.testing.assert_allclose(without[:, columns], with_them[:, columns], rtol=1e-6)
    assert np.isnan(np.delete(without, columns, axis=1)).all()


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("weights", lambda x: x[:-1], "weights: fit no mask of"),
        ("weights", lambda x: x * np.nan, "weights: fit no mask of"),
        ("weights", lambda x: x.astype(int), "weights: missing, or no list of numbers"),
        ("row_ends", lambda x: x[:-1], "weights: fit no mask of"),
        ("row_ends", lambda x: -x, "weights: fit no mask of"),
        ("weight_columns", lambda x: x + 10**6, "weights: fit no mask of"),
        ("columns", lambda x: x[::-1], "columns: must ascend from 0 to below 20484"),
        ("columns", lambda x: x + 20_000, "columns: must ascend from 0 to below 20484"),
        ("walls", lambda x: x[1:], r"walls: \(20483,\), must be \(20484,\)"),
        ("points", lambda x: np.zeros((2, 1, 3)), "points: must be there for volumes"),
    ],
)
def test_what_is_no_drawing_is_a_sentence(tmp_path, name, change, sentence):
    drawing, mask = made(tmp_path)
    arrays = drawing.arrays()
    arrays[name] = change(arrays.get(name))
    with pytest.raises(InputError, match=sentence):
        Drawing.read(drawing.described(), arrays, mask=mask)


def test_a_damaged_folder_is_named_and_none_is_none(tmp_path):
    drawing, mask = made(tmp_path)
    assert drawn.load(tmp_path / "absent", mask=mask) is None
    drawn.save(tmp_path / "kept", drawing)
    with pytest.raises(DirectoryError, match=r"kept: weights: fit no mask of 256 pixels"):
        drawn.load(tmp_path / "kept", mask=np.ones((16, 16), bool))


def test_surfaces_of_another_part_of_the_cortex_are_rejected(tmp_path):
    data = settings(tmp_path, tmp_path / "none.zarr", map_size=16)
    with pytest.raises(DataError, match="draw another part of the cortex than the maps"):
        drawn.made(data, mask=np.ones((16, 16), bool))
