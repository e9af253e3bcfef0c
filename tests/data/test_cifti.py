"""Dense series in any order, packed or not, and index maps that do not fit."""

import gzip
import re
import struct
from functools import partial

import numpy as np
import pytest

from glfa_jax.data import readers, regions
from tests.data.meshes import write_dlabel
from tests.data.scans import MESH, ends_in_a_sentence, mutations, write_cifti
from tests.data.test_readers import read, rejects


@pytest.mark.parametrize("time_first", [True, False])
@pytest.mark.parametrize("name", ["a.dtseries.nii", "a.dtseries.nii.gz"])
def test_a_packed_series_is_read_whatever_its_name(tmp_path, monkeypatch, time_first, name):
    path = tmp_path / "plain.dtseries.nii"
    expected = write_cifti(path, 7, time_first=time_first, between=True)
    packed = tmp_path / name
    packed.write_bytes(gzip.compress(path.read_bytes()))
    monkeypatch.setattr(readers, "BLOCK_BYTES", 4 * 3 * sum(MESH))
    np.testing.assert_array_equal(read(partial(readers.cifti, packed)), expected)
    assert readers.header_of(packed) == (7, 2.0, MESH)
    whole = packed.read_bytes()
    packed.write_bytes(whole[:-6] + bytes([whole[-6] ^ 1]) + whole[-5:])
    rejects(r"truncated or no CIFTI \(CRC", readers.cifti(packed))
    packed.write_bytes(whole[:-20])
    rejects(r"truncated or no CIFTI", readers.cifti(packed))


def test_packed_labels_are_read(tmp_path):
    keys = {"left": np.array([0, 1, 2]), "right": np.array([1, 1, 0])}
    cut = {"left": np.array([0]), "right": np.array([2])}
    path = write_dlabel(tmp_path / "a.dlabel.nii", keys, {1: "V1", 2: "V2"}, cut)
    packed = tmp_path / "a.dlabel.nii.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    inside = regions.areas((packed,), names=["V1"], sides=(3, 3))
    assert inside.tolist() == [False, True, False, True, True, False]


def test_models_may_be_listed_in_another_order_than_they_lie(tmp_path):
    path = tmp_path / "a.dtseries.nii"
    expected = write_cifti(path, 4)
    edited(path, rb"(<BrainModel .*?</BrainModel>)(\s*<BrainModel .*?</BrainModel>)", rb"\2\1")
    np.testing.assert_array_equal(read(partial(readers.cifti, path)), expected)


def edited(path, old, new):
    """Changes the first such piece of the XML, which lies between the header and the values."""
    content = path.read_bytes()
    (end,) = struct.unpack_from("<q", content, 168)
    text, count = re.subn(old, new, content[552:end].rstrip(b"\0"), count=1, flags=re.S)
    assert count == 1
    text += bytes(-(len(text) + 8) % 16)
    size = struct.pack("<q", 552 + len(text)), struct.pack("<i", 8 + len(text))
    parts = (content[:168], size[0], content[176:544], size[1], content[548:552], text)
    path.write_bytes(b"".join((*parts, content[end:])))


@pytest.mark.filterwarnings("ignore:Dataobj shape")
@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (rb'SurfaceNumberOfVertices="40"', b'SurfaceNumberOfVertices="39"', "must name 36 diff"),
        (
            rb"<VertexIndices>0 1 ",
            b"<VertexIndices>1 1 ",
            "must name 36 different vertices of its 40",
        ),
        (rb"<VertexIndices>0 1 2 ", b"<VertexIndices>-1 1 2", "must name 36|truncated"),
        (rb"<VertexIndices>0 1 2 3 ", b"<VertexIndices>0 1 2 ", "must name 36|truncated or no"),
        (rb'IndexOffset="36"', b'IndexOffset="35"', "brain models do not describe each once"),
        (rb'IndexOffset="0"', b'IndexOffset="1"', "brain models do not describe each once"),
        (rb'IndexCount="36"', b'IndexCount="37"', "brain models do not describe each once"),
        (rb'IndexCount="8"', b'IndexCount="9"', "brain models do not describe each once"),
        (rb'SeriesUnit="SECOND"', b'SeriesUnit="METER" ', "counts in METER, must be SECOND"),
        (rb'NumberOfSeriesPoints="4"', b'NumberOfSeriesPoints="5"', "its header describes"),
        (rb'IndexCount="8"', b'IndexCount="8e"', "truncated or no CIFTI"),
        (rb"CORTEX_LEFT", b"CORTEX_LFFT", "has no CIFTI_STRUCTURE_CORTEX_LEFT|truncated"),
    ],
)
def test_maps_that_do_not_fit_are_rejected(tmp_path, old, new, says):
    path = tmp_path / "a.dtseries.nii"
    write_cifti(path, 4)
    edited(path, old, new)
    rejects(rf"a\.dtseries\.nii: .*({says})", readers.cifti(path))


def test_a_map_that_claims_more_than_memory_is_rejected_at_once(tmp_path):
    path = tmp_path / "a.dtseries.nii"
    write_cifti(path, 4)
    edited(path, rb' IndexCount="36"', b' IndexCount="%d"' % 2**40)
    rejects("brain models do not describe each once", readers.cifti(path))
    write_cifti(path, 4)
    edited(path, rb'SurfaceNumberOfVertices="40"', b'SurfaceNumberOfVertices="%d"' % 2**40)
    rejects("4 volumes of 1,099,511,627,820 values, must be 1 to", readers.cifti(path))


@pytest.mark.filterwarnings("ignore:Dataobj shape", "ignore:Extension size")
@pytest.mark.parametrize("pack", [False, True])
def test_no_damage_is_more_than_a_sentence(tmp_path, pack):
    path = tmp_path / "a.dtseries.nii"
    write_cifti(path, 4)
    whole = path.read_bytes()
    for content in mutations(gzip.compress(whole) if pack else whole, head=3500):
        path.write_bytes(content)
        ends_in_a_sentence(path, lambda: list(readers.cifti(path)))
