"""Functional GIFTI as other programs write it, and as nobody should."""

import base64
import gzip
import tracemalloc
import zlib

import numpy as np
import pytest
from nibabel.gifti import GiftiDataArray, GiftiImage

from glfa_jax.data import DataError, gifti, readers
from tests.data.scans import ends_in_a_sentence, mutations

SERIES = np.random.default_rng(0).integers(-100, 100, (5, 12))
POINTS = GiftiDataArray(np.zeros((12, 3), np.float32), "NIFTI_INTENT_POINTSET")
FACES = GiftiDataArray(np.zeros((20, 3), np.int32), "NIFTI_INTENT_TRIANGLE")


def write(path, arrays, **meta):
    image = GiftiImage(darrays=arrays)
    image.meta.update(meta)
    path.write_bytes(image.to_bytes())
    return path


def arrays_of(series, **options):
    return [GiftiDataArray(volume, **options) for volume in series]


def read(path):
    return gifti.read_series(path, side="left")


def xml(shape, content, *, encoding="GZipBase64Binary", kind="FLOAT32", more="", before=""):
    dims = "".join(f' Dim{i}="{n}"' for i, n in enumerate(shape))
    return (
        f'<?xml version="1.0"?>{before}<GIFTI Version="1.0" NumberOfDataArrays="1"><DataArray '
        f'Intent="NIFTI_INTENT_TIME_SERIES" DataType="NIFTI_TYPE_{kind}" Dimensionality='
        f'"{len(shape)}"{dims} ArrayIndexingOrder="RowMajorOrder" Encoding="{encoding}" '
        f'Endian="LittleEndian" {more}><Data>{content}</Data></DataArray></GIFTI>'
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32])
@pytest.mark.parametrize("encoding", ["ASCII", "B64BIN", "B64GZ"])
@pytest.mark.parametrize("intent", ["NIFTI_INTENT_NONE", "NIFTI_INTENT_TIME_SERIES"])
@pytest.mark.parametrize("pack", [False, True])
def test_every_encoding_is_read(tmp_path, dtype, encoding, intent, pack):
    series = abs(SERIES).astype(dtype)
    path = write(tmp_path / "a.func.gii", arrays_of(series, intent=intent, encoding=encoding))
    if pack:
        path.write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(read(path), series)
    assert read(path).dtype == np.float32


@pytest.mark.parametrize("dtype", [np.int16, np.float64, np.int8, np.uint16])
@pytest.mark.parametrize("order", ["RowMajorOrder", "ColumnMajorOrder"])
@pytest.mark.parametrize("endian", ["Little", "Big"])
@pytest.mark.parametrize("encoding", ["GZipBase64Binary", "Base64Binary"])
def test_one_array_of_all_volumes_in_any_order_of_bytes(tmp_path, dtype, order, endian, encoding):
    series = abs(SERIES).astype(dtype)
    content = series.T.astype(np.dtype(dtype).newbyteorder("<" if endian == "Little" else ">"))
    content = content.tobytes("C" if order == "RowMajorOrder" else "F")
    content = base64.b64encode(zlib.compress(content) if "GZip" in encoding else content).decode()
    text = xml((12, 5), content, encoding=encoding, kind=np.dtype(dtype).name.upper())
    text = text.replace("RowMajorOrder", order).replace("LittleEndian", f"{endian}Endian")
    (tmp_path / "a.gii").write_text(text)
    np.testing.assert_array_equal(read(tmp_path / "a.gii"), series)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("intent", ["NIFTI_INTENT_NONE", "NIFTI_INTENT_TIME_SERIES"])
def test_a_surface_beside_the_series_is_left_alone(tmp_path, first, intent):
    arrays = arrays_of(SERIES.astype(np.float32), intent=intent)
    arrays = [POINTS, FACES, *arrays] if first else [*arrays, POINTS, FACES]
    path = write(tmp_path / "a.gii", arrays, TimeStep="1500.0")
    np.testing.assert_array_equal(read(path), SERIES)
    assert readers.header_of(path) == (0, 1.5, (12,))


def test_other_arrays_than_a_series(tmp_path):
    path = tmp_path / "a.gii"
    series = arrays_of(SERIES.astype(np.float32), intent="NIFTI_INTENT_TIME_SERIES")
    write(path, [*arrays_of(np.ones((1, 12), np.float32), intent="NIFTI_INTENT_SHAPE"), *series])
    np.testing.assert_array_equal(read(path), SERIES)
    order = np.arange(12, dtype=np.int32)
    write(path, [GiftiDataArray(order, "NIFTI_INTENT_NODE_INDEX"), *series])
    np.testing.assert_array_equal(read(path), SERIES)
    for arrays, says in (
        (
            [GiftiDataArray(order[::-1], "NIFTI_INTENT_NODE_INDEX"), *series],
            "of some vertices only",
        ),
        ([POINTS, FACES], "holds no time series"),
        ([], "holds no time series"),
        ([GiftiDataArray(np.zeros((4, 5, 6), np.float32))], r"holds float32 \(4, 5, 6\)"),
    ):
        write(path, arrays)
        with pytest.raises(DataError, match=rf"a\.gii: .*{says}"):
            read(path)
    write(path, [*arrays_of(SERIES.astype(np.float32)), *arrays_of(np.ones((1, 11), np.float32))])
    with pytest.raises(DataError, match=r"a\.gii: truncated or no GIFTI \(all the input array dim"):
        read(path)


@pytest.mark.parametrize("where", ["file", "array"])
@pytest.mark.parametrize(("stated", "seconds"), [("2000.0", 2.0), ("", 0.0), ("2.0", 0.002)])
def test_the_head_tells_time_in_milliseconds_and_vertices(tmp_path, where, stated, seconds):
    meta = {"TimeStep": stated}
    arrays = arrays_of(SERIES.astype(np.float32), meta=meta if where == "array" else None)
    path = write(tmp_path / "a.func.gii", arrays, **(meta if where == "file" else {}))
    assert readers.header_of(path) == (0, pytest.approx(seconds), (12,))


def test_the_head_is_known_without_the_rest(tmp_path):
    path = write(tmp_path / "a.gii", arrays_of(SERIES.astype(np.float32)), TimeStep="800")
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"<Data>") + 10])
    assert readers.header_of(path) == (0, 0.8, (12,))


@pytest.mark.parametrize(
    "name", ["CortexRight", "CORTEX_RIGHT", "cortex right", "CIFTI_STRUCTURE_CORTEX_RIGHT", "right"]
)
def test_the_other_hemisphere_is_recognised_however_it_is_spelled(tmp_path, name):
    arrays = arrays_of(SERIES.astype(np.float32))
    path = write(tmp_path / "a.gii", arrays, AnatomicalStructurePrimary=name)
    with pytest.raises(DataError, match="holds CortexRight, must hold the left hemisphere"):
        read(path)


@pytest.mark.parametrize("name", ["CortexLeftAndRight", "Cortex", ""])
def test_a_structure_that_is_not_the_other_one_is_read(tmp_path, name):
    arrays = arrays_of(SERIES.astype(np.float32))
    path = write(tmp_path / "a.gii", arrays, AnatomicalStructurePrimary=name)
    np.testing.assert_array_equal(read(path), SERIES)


@pytest.mark.parametrize("announced", [b"4", b"6"])
def test_a_file_with_fewer_or_more_volumes_than_it_announces_is_rejected(tmp_path, announced):
    path = write(tmp_path / "a.gii", arrays_of(SERIES.astype(np.float32)))
    content = path.read_bytes()
    path.write_bytes(content.replace(b'DataArrays="5"', b'DataArrays="' + announced + b'"'))
    with pytest.raises(DataError, match=r"truncated or no GIFTI \(Actual # of data arrays"):
        read(path)


def test_no_other_file_is_read(tmp_path):
    (tmp_path / "b.bin").write_bytes(bytes(4 * 60))
    path = tmp_path / "a.gii"
    for name in ("b.bin", str(tmp_path / "b.bin"), "", "none"):
        more = f'ExternalFileName="{name}" ExternalFileOffset="0"'
        path.write_text(xml((12, 5), "", encoding="ExternalFileBinary", more=more))
        for task in (read, readers.header_of):
            with pytest.raises(DataError, match=r"a\.gii: keeps its values in other files, must"):
                task(path)


def bombs():
    zeros = zlib.compress(bytes(2**28), 9)
    for wanted, (shape, content) in {
        "does not hold as much": ((12, 5), base64.b64encode(zeros).decode()),
        "claim to be far longer": ((2**26,), base64.b64encode(zeros).decode()),
        "cannot reshape": ((2**20,), base64.b64encode(zlib.compress(bytes(8))).decode()),
        "far longer than": ((2**40, 2**40), ""),
    }.items():
        yield wanted, xml(shape, content).encode()
    yield "cannot reshape", xml((2**20,), "AAAAAAAAAAA=", encoding="Base64Binary").encode()
    yield "unpacks to more than", gzip.compress(xml((9,), " " * 2**28).encode())
    nested = "".join(f'<!ENTITY a{i + 1} "{f"&a{i};" * 9}">' for i in range(12))
    before = f'<!DOCTYPE GIFTI [<!ENTITY a0 "{"1 " * 99}">{nested}]>'
    yield "amplification", xml((9,), "&a12;", encoding="ASCII", before=before).encode()


@pytest.mark.parametrize(("says", "content"), [*bombs()], ids=lambda x: x if type(x) is str else "")
def test_no_small_file_takes_much_memory(tmp_path, says, content):
    path = tmp_path / "a.gii"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=rf"a\.gii: truncated or no GIFTI \(.*{says}"):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 20 * len(content) + 2 * gifti.ROOM
    finally:
        tracemalloc.stop()


@pytest.mark.filterwarnings("ignore:loadtxt")
@pytest.mark.parametrize("entity", ['SYSTEM "b.txt"', '"1 2 3"'])
def test_no_text_of_other_files_comes_in(tmp_path, entity):
    (tmp_path / "b.txt").write_text("1 2 3")
    text = xml((3,), "&b;", encoding="ASCII", before=f"<!DOCTYPE GIFTI [<!ENTITY b {entity}>]>")
    (tmp_path / "a.gii").write_text(text)
    ends_in_a_sentence(tmp_path / "a.gii", lambda: read(tmp_path / "a.gii"))
    if "SYSTEM" in entity:
        with pytest.raises(DataError):
            read(tmp_path / "a.gii")


@pytest.mark.parametrize("encoding", ["ASCII", "B64BIN", "B64GZ"])
def test_no_damage_is_more_than_a_sentence(tmp_path, encoding):
    path = write(tmp_path / "a.gii", arrays_of(SERIES.astype(np.float32), encoding=encoding))
    for content in mutations(path.read_bytes(), head=1200):
        path.write_bytes(content)
        ends_in_a_sentence(path, lambda: read(path))
        ends_in_a_sentence(path, lambda: readers.header_of(path))
