"""Volumes as other programs write them, and as nobody should."""

import gzip
import struct
import tracemalloc
from functools import partial

import nibabel
import numpy as np
import pytest

from glfa_jax.data import claims, readers
from tests.data.scans import ends_in_a_sentence, mutations
from tests.data.test_readers import AFFINE, read, rejects, two_sides

VALUES = np.random.default_rng(0).integers(900, 1100, (7, 8, 9, 3))


def write(path, values=VALUES, *, kind=nibabel.Nifti1Image, sform=1, qform=0, affine=AFFINE):
    """Without the option, nibabel itself would say where the volume lies."""
    image = kind(values, None)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = 1.5
    if qform:
        image.header.set_qform(affine, qform)
    if sform:
        image.header.set_sform(affine, sform)
    path.write_bytes(image.to_bytes())
    return path


def packed(path):
    path.write_bytes(gzip.compress(path.read_bytes()))
    return path


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    path = write(tmp_path_factory.mktemp("a") / "a.nii", VALUES.astype(np.float32))
    return read(partial(readers.volume, path, two_sides()))


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("dtype", [np.int16, ">f8"])
def test_both_versions_are_read_whatever_their_name(tmp_path, expected, kind, name, pack, dtype):
    path = write(tmp_path / name, VALUES.astype(dtype), kind=kind)
    if pack:
        packed(path)
    np.testing.assert_allclose(read(partial(readers.volume, path, two_sides())), expected)
    assert readers.header_of(path) == (3, 1.5, ())


def test_axes_of_one_value_behind_time_count_for_nothing(tmp_path, expected):
    path = write(tmp_path / "a.nii", VALUES.astype(np.uint16)[..., None, None])
    np.testing.assert_allclose(read(partial(readers.volume, path, two_sides())), expected)


def test_the_qform_places_what_has_no_sform(tmp_path):
    rigid = np.diag([-2.0, 2.0, 2.0, 1.0])
    rigid[:3, 3] = 9, -7, -8
    paths = [tmp_path / f"{kind}.nii" for kind in "qs"]
    write(paths[0], VALUES.astype(np.float32), sform=0, qform=1, affine=rigid)
    write(paths[1], VALUES.astype(np.float32), sform=1, qform=0, affine=rigid)
    one, two = (read(partial(readers.volume, path, two_sides())) for path in paths)
    np.testing.assert_allclose(one, two, rtol=1e-5)


def test_a_volume_that_lies_nowhere_is_rejected(tmp_path):
    path = write(tmp_path / "a.nii.gz", VALUES.astype(np.float32), sform=0)
    for blocks in (readers.volume(path, two_sides()), (readers.header_of(path) for _ in "a")):
        rejects(r"a\.nii\.gz: does not say where it lies \(sform_code and qform_code", blocks)


@pytest.mark.parametrize("spoil", [np.zeros, np.ones, partial(np.full, fill_value=np.nan)])
@pytest.mark.parametrize("row", [0, 2, slice(0, 3)])
def test_an_affine_without_extent_is_rejected(tmp_path, spoil, row):
    affine = AFFINE.copy()
    affine[row, :3] = spoil(affine[row, :3].shape)
    path = write(tmp_path / "a.nii", VALUES.astype(np.float32), affine=affine)
    if spoil is np.ones and row != slice(0, 3):
        assert len(read(partial(readers.volume, path, two_sides()))) == 3  # oblique, no more
    else:
        rejects(
            r"a\.nii: its affine .* puts all voxels in one plane", readers.volume(path, two_sides())
        )


@pytest.mark.parametrize(
    ("at", "form", "values", "says"),
    [
        (40, "<8h", (4, 7, 8, 9, 0, 1, 1, 1), "volumes of 504 values, must be"),
        (40, "<8h", (4, 7, 0, 9, 3, 1, 1, 1), "3 volumes of 0 values, must be"),
        (40, "<8h", (4, 7, -8, 9, 3, 1, 1, 1), "must be 1 to|truncated or no NIfTI"),
        (40, "<8h", (4, 7, 8, 9, 30000, 1, 1, 1), r"truncated or no NIfTI \(\d+ bytes, must be"),
        (40, "<8h", (4, 30000, 30000, 30000, 3, 1, 1, 1), "truncated or no NIfTI"),
        (40, "<8h", (3, 7, 8, 9, 3, 1, 1, 1), "must be a series of volumes"),
        (40, "<8h", (5, 7, 8, 9, 1, 3, 1, 1), "must be a series of volumes"),
        (70, "<h", (1792,), "truncated or no NIfTI|must hold plain"),
        (70, "<h", (32,), "must hold plain numbers, holds complex64"),
        (70, "<h", (128,), "must hold plain numbers"),
        (70, "<h", (999,), "truncated or no NIfTI"),
        (108, "<f", (np.nan,), "truncated or no NIfTI"),
        (108, "<f", (1e30,), "truncated or no NIfTI"),
        (108, "<f232x4s", (0, b"ni1\0"), "its values begin within its header"),
    ],
)
@pytest.mark.parametrize("pack", [False, True])
def test_headers_that_make_no_sense_are_rejected(tmp_path, at, form, values, says, pack):
    path = write(tmp_path / "a.nii", VALUES.astype(np.float32))
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, at, *values)
    path.write_bytes(content)
    if pack:
        packed(path)
    rejects(rf"a\.nii: .*({says})", readers.volume(path, two_sides()))


@pytest.mark.parametrize(("slope", "inter"), [(np.nan, 0), (0, 0), (0, 7), (np.nan, np.nan)])
def test_a_slope_that_is_none_scales_nothing(tmp_path, expected, slope, inter):
    path = write(tmp_path / "a.nii", VALUES.astype(np.int16))
    content = bytearray(path.read_bytes())
    struct.pack_into("<2f", content, 112, slope, inter)
    path.write_bytes(content)
    np.testing.assert_allclose(read(partial(readers.volume, path, two_sides())), expected)


def test_more_volumes_than_any_run_holds_are_rejected(tmp_path):
    path = write(tmp_path / "a.nii", VALUES.astype(np.float32), kind=nibabel.Nifti2Image)
    content = bytearray(path.read_bytes())
    struct.pack_into("<8q", content, 16, 4, 1, 1, 1, 2**40, 1, 1, 1)
    path.write_bytes(content)
    rejects("truncated or no NIfTI", readers.volume(path, two_sides()))
    values = np.zeros((1, 1, 1, 100_001), np.uint8)
    write(path, values, kind=nibabel.Nifti2Image)
    rejects("100,001 volumes of 1 values, must be 1 to 100,000", readers.volume(path, two_sides()))


def test_a_packed_file_must_fit_its_checksum(tmp_path):
    path = packed(write(tmp_path / "a.nii.gz", VALUES.astype(np.float32)))
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    assert readers.header_of(path).volumes == 3  # not all of it is read for that
    rejects(r"a\.nii\.gz: truncated or no NIfTI \(CRC", readers.volume(path, two_sides()))


def test_a_small_packed_file_takes_no_more_memory_than_a_block(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "AT_ONCE", 2**22)
    path = write(tmp_path / "a.nii", np.zeros((1, 1, 1, 2), np.uint8))
    content = bytearray(path.read_bytes()[:348])
    struct.pack_into("<f", content, 108, 2**24)
    content += struct.pack("<4s2i", b"\1", 2**24 - 352, 44)
    path.write_bytes(gzip.compress(content + bytes(2**24)))
    tracemalloc.start()
    try:
        rejects(r"truncated or no NIfTI \(unpacks to more than", readers.volume(path, two_sides()))
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("pack", [False, True])
def test_no_damage_is_more_than_a_sentence(tmp_path, pack):
    path = write(tmp_path / "a.nii", VALUES.astype(np.float32), qform=1)
    whole = (packed(path) if pack else path).read_bytes()
    for content in mutations(whole, head=352):
        path.write_bytes(content)
        for task in (partial(readers.header_of, path), partial(read_all, path)):
            ends_in_a_sentence(path, task)


def read_all(path):
    # Sampling takes a hundred times as long as reading, and no byte of the file decides about it.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nilearn.surface.vol_to_surf", lambda part, *_, **__: part.dataobj[0, 0])
        return list(readers.volume(path, two_sides()))
