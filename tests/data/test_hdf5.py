"""HDF5 data sets that lie elsewhere, lead elsewhere, were never written or claim too much."""

from functools import partial

import h5py
import numpy as np
import pytest

from glfa_jax.data import readers
from tests.data.scans import ends_in_a_sentence, mutations
from tests.data.test_readers import read, rejects

VALUES = np.random.default_rng(0).random((11, 5, 7), np.float32)


@pytest.fixture
def other(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["images"] = VALUES
        file["group/images"] = VALUES
    (tmp_path / "other.bin").write_bytes(VALUES.tobytes())
    return tmp_path / "other.h5"


def rejected(path, says, key="images"):
    rejects(rf"{path.name}: .*{says}", readers.hdf5(path, key))
    rejects(rf"{path.name}: .*{says}", (readers.hdf5_shape(path, key) for _ in "a"))


def test_links_within_the_file_are_followed(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["group/real"] = VALUES
        file["group/soft"] = h5py.SoftLink("real")
        file["images"] = h5py.SoftLink("/group/soft")
        file["hard"] = file["group"]
        file["round"] = h5py.SoftLink("/round")
        file["one"] = h5py.SoftLink("two")
        file["two"] = h5py.SoftLink("one")
        file["nowhere"] = h5py.SoftLink("/group/none")
    for key in ("images", "/images", "group/real", "hard/soft", "./group//soft"):
        np.testing.assert_array_equal(
            read(partial(readers.hdf5, path, key)), VALUES.reshape(11, 35)
        )
    rejected(path, "is a link to itself", "round")
    rejected(path, "is a link to itself", "two")
    for key in ("nowhere", "group/real/x", "", "hard"):
        rejected(path, "has no data set", key)


def test_no_other_file_is_read(tmp_path, other):
    path = tmp_path / "a.h5"
    layout = h5py.VirtualLayout(VALUES.shape, np.float32)
    layout[:] = h5py.VirtualSource(other, "images", VALUES.shape)
    with h5py.File(path, "w") as file:
        file["link"] = h5py.ExternalLink(other.name, "images")
        file["group"] = h5py.ExternalLink(str(other), "group")
        file["soft"] = h5py.SoftLink("/link")
        file["chain"] = h5py.SoftLink("/group/images")
        file.create_virtual_dataset("virtual", layout)
        for key, name in (("near", "other.bin"), ("far", str(tmp_path / "other.bin"))):
            file.create_dataset(key, VALUES.shape, np.float32, external=[(name, 0, VALUES.nbytes)])
    for key in ("link", "soft", "group/images", "chain"):
        rejected(path, "lies in another file, must lie in this one", key)
    for key in ("virtual", "near", "far"):
        rejected(path, "keeps its values in other files, must hold them itself", key)


def test_what_was_never_written_is_no_series_of_zeros(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        whole = file.create_dataset("whole", VALUES.shape, np.float32, chunks=(4, 5, 7))
        whole[:] = 0
        for key, chunks in (("lost", (1, 5, 7)), ("part", (2, 3, 4))):
            file.create_dataset(key, VALUES.shape, np.float32, chunks=chunks)[:6] = VALUES[:6]
        file.create_dataset("never", VALUES.shape, np.float32)
        file.create_dataset("huge", (2**40, 5, 7), np.float32, chunks=(1, 5, 7))
        file.create_dataset("long", (90_000, 500, 700), np.float32, chunks=(1, 500, 700))
        file.create_dataset("broad", (9, 2**40), np.float32, chunks=(1, 2**20))
        file.create_dataset("lumps", (900, 2**20), np.float32, chunks=(900, 2**20))
        file.create_dataset("empty", data=h5py.Empty("f"))
        file.create_dataset("none", (0, 5), np.float32)
    assert not read(partial(readers.hdf5, path, "whole")).any()
    rejected(path, "not written to its end, 6 of 11 chunks", "lost")
    rejected(path, "not written to its end, 12 of 24 chunks", "part")
    rejected(path, "not written to its end, 0 of 1540 bytes", "never")
    rejected(path, "1,099,511,627,776 volumes of 35 values, must be 1 to 100,000", "huge")
    rejected(path, "not written to its end, 0 of 90000 chunks", "long")
    rejected(path, "9 volumes of 1,099,511,627,776 values, must be", "broad")
    rejected(path, "has chunks of 3,774,873,600 bytes, at most", "lumps")
    rejected(path, "truncated or no HDF5|must hold numbers", "empty")
    rejected(path, "0 volumes of 5 values", "none")


def test_a_filter_that_is_not_installed_is_named(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk((1, 5, 7))
        made.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple(VALUES.shape)
        h5py.h5d.create(file.id, b"images", h5py.h5t.NATIVE_FLOAT, space, made)
        file["images"][:] = VALUES
    rejected(path, r"is packed with a filter that is not installed \(.*\); write it anew")


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}, {"compression": "lzf"}])
def test_no_damage_is_more_than_a_sentence(tmp_path, options):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=VALUES, chunks=(2, 5, 7), **options)
    for content in mutations(path.read_bytes(), head=4000, count=80):
        path.write_bytes(content)
        ends_in_a_sentence(path, lambda: list(readers.hdf5(path, "images")))
