"""Scanner files as blocks, against slow computations of their own; and files that are damaged."""

import pickle
from functools import partial
from types import SimpleNamespace

import h5py
import nibabel
import numpy as np
import pytest

from glfa_jax.data import DataError, readers
from tests.data.scans import MESH, brain_models, truncate, write_cifti, write_nifti


def read(blocks):
    """A whole series, from a reader that has been sent to another process."""
    found = list(pickle.loads(pickle.dumps(blocks))())
    assert all(block.dtype == np.float32 for block in found)
    return np.concatenate(found)


def small_blocks(monkeypatch, volumes, values):
    """Blocks of so many volumes."""
    monkeypatch.setattr(readers, "BLOCK_BYTES", 4 * volumes * values)


def rejects(message, blocks):
    with pytest.raises(DataError, match=message) as caught:
        list(blocks)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("volumes", [1, 3, 100])
@pytest.mark.parametrize("time_first", [True, False])
@pytest.mark.parametrize("between", [True, False])
def test_cifti_takes_the_cortex_by_its_brain_models(
    tmp_path, monkeypatch, volumes, time_first, between
):
    path = tmp_path / "a.dtseries.nii"
    expected = write_cifti(path, 7, step=0.72, time_first=time_first, between=between)
    small_blocks(monkeypatch, volumes, sum(MESH))
    np.testing.assert_array_equal(read(partial(readers.cifti, path)), expected)
    blocks = list(readers.cifti(path))
    assert [len(block) for block in blocks[:-1]] == [volumes] * (len(blocks) - 1)
    assert 0 < np.isnan(expected).sum() < expected.size  # the medial wall is not in the file
    assert readers.cifti_header(path)[:2] == (7, pytest.approx(0.72))


def test_cifti_of_another_kind_is_rejected(tmp_path):
    path = tmp_path / "a.dtseries.nii"
    write_cifti(path, 4, unit="HERTZ")
    rejects(r"a\.dtseries\.nii: its series counts in HERTZ, must be SECOND", readers.cifti(path))
    models = brain_models()
    scalars = nibabel.cifti2.ScalarAxis(["a", "b"])
    nibabel.save(nibabel.Cifti2Image(np.zeros((2, len(models))), [scalars, models]), path)
    rejects("must hold a series of dense brain models, holds Scalar and Brain", readers.cifti(path))
    left = models[models.name == "CIFTI_STRUCTURE_CORTEX_LEFT"]
    series = nibabel.cifti2.SeriesAxis(0, 2, 3)
    nibabel.save(nibabel.Cifti2Image(np.zeros((3, len(left))), [series, left]), path)
    rejects("has no CIFTI_STRUCTURE_CORTEX_RIGHT$", readers.cifti(path))
    write_nifti(path, np.zeros((3, 3, 3, 4)), affine=np.eye(4), step=2)
    rejects("truncated or no CIFTI", readers.cifti(path))


@pytest.mark.parametrize("part", [0, 0.01, 0.2, 0.9])
def test_truncated_files_are_rejected(tmp_path, part):
    dense, boxed, volumes = (tmp_path / name for name in ("a.dtseries.nii", "a.h5", "a.nii.gz"))
    write_cifti(dense, 50)
    with h5py.File(boxed, "w") as file:
        values = np.random.default_rng(0).random((20, 8, 9), np.float32)
        file.create_dataset("images", data=values, chunks=(1, 8, 9))
    write_nifti(volumes, np.random.default_rng(0).random((5, 6, 7, 8)), affine=np.eye(4), step=2)
    for path in (dense, boxed, volumes):
        truncate(path, part)
    rejects(r"a\.dtseries\.nii: truncated or no CIFTI", readers.cifti(dense))
    rejects(r"a\.h5: truncated or no HDF5", readers.hdf5(boxed, "images"))
    rejects(r"a\.nii\.gz: truncated or no NIfTI", readers.volume(volumes, two_sides()))
    for blocks in (readers.cifti(tmp_path / "b"), readers.hdf5(tmp_path / "b", "images")):
        rejects("b: no such file", blocks)


def write_gifti(path, series, structure, *, columns=False):
    arrays = [series.T] if columns else list(series)
    image = nibabel.gifti.GiftiImage(
        darrays=[nibabel.gifti.GiftiDataArray(a.astype(np.float32)) for a in arrays]
    )
    image.meta["AnatomicalStructurePrimary"] = structure
    nibabel.save(image, path)


@pytest.mark.parametrize("columns", [True, False])
def test_gifti_hemispheres_side_by_side(tmp_path, monkeypatch, columns):
    left, right = tmp_path / "l.func.gii", tmp_path / "r.func.gii"
    series = np.random.default_rng(0).normal(size=(7, 30)).astype(np.float32)
    write_gifti(left, series[:, :14], "CortexLeft", columns=columns)
    write_gifti(right, series[:, 14:], "CortexRight", columns=columns)
    small_blocks(monkeypatch, 2, 30)
    np.testing.assert_array_equal(read(partial(readers.gifti_pair, left, right)), series)
    rejects(r"r\.func\.gii: holds CortexRight, must hold the left", readers.gifti_pair(right, left))
    write_gifti(right, series[:-1, 14:], "CortexRight", columns=columns)
    rejects(
        r"hemispheres of different length, 7 volumes in l\.func\.gii and 6 in r\.func\.gii",
        readers.gifti_pair(left, right),
    )


AFFINE = np.array([[-1.9, 0.3, 0, 9.0], [0.2, 2.1, 0.1, -7.0], [0, -0.2, 2.0, -8.0], [0, 0, 0, 1]])


def two_sides(inside=True):
    """Surfaces of few vertices within the image that AFFINE places."""
    rng = np.random.default_rng(1)
    sides = []
    for size in (9, 12):
        voxel = rng.uniform(1, 5, (size, 3)) + (0 if inside else 100)
        white = voxel @ AFFINE[:3, :3].T + AFFINE[:3, 3]
        faces = np.stack([np.arange(size - 2), np.arange(1, size - 1), np.arange(2, size)], 1)
        pial = white + rng.uniform(-1, 1, (size, 3))
        sides.append(SimpleNamespace(white=white, pial=pial, faces=faces))
    return SimpleNamespace(left=sides[0], right=sides[1], num_vertices=21)


def slow_sample(volume, point):
    """Trilinear interpolation at a place in mm, one corner after the other."""
    place = np.linalg.inv(AFFINE) @ [*point, 1]
    base = np.floor(place[:3]).astype(int)
    total = 0.0
    for corner in np.ndindex(2, 2, 2):
        share = np.prod([1 - abs(place[i] - base[i] - corner[i]) for i in range(3)])
        total += share * volume[tuple(base + corner)]
    return total


def test_volumes_are_sampled_between_white_and_pial(tmp_path, monkeypatch):
    path = tmp_path / "a.nii.gz"
    values = np.random.default_rng(0).normal(1000, 10, (7, 8, 9, 5)).astype(np.float32)
    write_nifti(path, values, affine=AFFINE, step=1.5)
    surfaces = two_sides()
    small_blocks(monkeypatch, 2, 7 * 8 * 9)
    found = read(partial(readers.volume, path, surfaces))
    expected = [
        [
            np.mean(
                [
                    slow_sample(values[..., t], (1 - depth) * pial + depth * white)
                    for depth in np.linspace(0, 1, readers.SAMPLES)
                ]
            )
            for side in (surfaces.left, surfaces.right)
            for white, pial in zip(side.white, side.pial, strict=True)
        ]
        for t in range(5)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert readers.volume_header(path)[:2] == (5, 1.5)


def test_vertices_outside_the_volume_are_not_a_number(tmp_path):
    path = tmp_path / "a.nii"
    write_nifti(path, np.ones((7, 8, 9, 2)), affine=AFFINE, step=1.5)
    assert np.isnan(read(partial(readers.volume, path, two_sides(inside=False)))).all()
    bare = two_sides()
    bare.right.white = None
    rejects(r"data\.surfaces\.white: is needed", readers.volume(path, bare))
    write_nifti(path, np.ones((7, 8, 9, 1, 2)), affine=AFFINE, step=1.5)
    rejects("must be a series of volumes", readers.volume(path, two_sides()))


@pytest.mark.parametrize("chunks", [None, (1, 5, 7), (4, 3, 7), (7, 5, 7)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_hdf5_in_blocks(tmp_path, monkeypatch, chunks, dtype):
    path = tmp_path / "a.h5"
    values = np.random.default_rng(0).normal(1000, 100, (11, 5, 7)).astype(dtype)
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=values, chunks=chunks)
        file["text"] = "hello"
        file.create_group("group")
    small_blocks(monkeypatch, 6, 35)
    expected = values.astype(np.float32).reshape(11, 35)
    np.testing.assert_array_equal(read(partial(readers.hdf5, path, "images")), expected)
    longest = max(len(block) for block in readers.hdf5(path, "images"))
    assert longest == {(4, 3, 7): 4, (7, 5, 7): 7}.get(chunks, 6)  # whole chunks
    small_blocks(monkeypatch, 1, 35)
    longest = max(len(block) for block in readers.hdf5(path, "images"))
    assert longest == (4 if chunks == (4, 3, 7) else 1)  # but blocks stay small
    assert readers.hdf5_shape(path, "images") == (11, 5, 7)
    rejects("has no data set 'bold', holds group, images, text", readers.hdf5(path, "bold"))
    rejects("has no data set 'group'", readers.hdf5(path, "group"))
    rejects("'text' must hold numbers", readers.hdf5(path, "text"))


@pytest.mark.parametrize("sizes", [[10], [3, 3, 4], [1] * 10])
@pytest.mark.parametrize(("begin", "end"), [(0, 0), (2, 0), (0, 4), (4, 5), (3, 1)])
def test_volumes_are_trimmed_at_both_ends(tmp_path, sizes, begin, end):
    series = np.arange(30, dtype=np.float32).reshape(10, 3)
    blocks = partial(np.split, series, np.cumsum(sizes)[:-1])
    left = np.concatenate(list(readers.trimmed(blocks, tmp_path, begin, end)))
    np.testing.assert_array_equal(left, series[begin : 10 - end])


def test_dropping_every_volume_is_rejected(tmp_path):
    blocks = partial(np.split, np.zeros((10, 3)), 2)
    rejects(r"10 volumes, and 4 \+ 6 of them", readers.trimmed(blocks, tmp_path / "a", 4, 6))
    rejects(r"10 volumes, and 20 \+ 0 of them", readers.trimmed(blocks, tmp_path / "a", 20, 0))
