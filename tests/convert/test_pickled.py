"""Checkpoints without PyTorch: round trips, hostile pickles, and what is said of broken files.

Hostile pickles are assembled by instruction, and each is first shown to do its harm in `pickle`.
"""

import copyreg
import mmap
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from contextlib import suppress
from functools import partial
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from glfa_jax.convert.directory import read_file
from glfa_jax.convert.pickled import PickledError, read_pickled, state_dict, write_pickled
from glfa_jax.errors import InputError

DTYPES = [
    *(np.float16, np.float32, np.float64, ml_dtypes.bfloat16, np.complex64, np.complex128),
    *(np.int8, np.int16, np.int32, np.int64, np.uint8, np.bool_),
]
SIX = np.arange(6, dtype=np.float32)


def example() -> dict[str, np.ndarray]:
    return {
        **{f"kind.{np.dtype(d).name}": np.arange(5).astype(d) for d in DTYPES},
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 4), np.float32),
        "transposed": np.arange(12.0).reshape(3, 4).T,
        "expanded": np.broadcast_to(np.float32(3), (2, 3)),
    }


def assert_same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        assert (ours[name].dtype, ours[name].shape) == (value.dtype, value.shape), name
        assert ours[name].tobytes() == value.tobytes(), name


def named(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def plain(value: object) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def called(function: str, *arguments: bytes) -> bytes:
    return named(function) + b"(" + b"".join(arguments) + b"tR"


def storage(key: str = "0", kind: str = "torch.FloatStorage", count: int = 6) -> bytes:
    return b"(" + plain("storage") + named(kind) + b"".join(map(plain, (key, "cpu", count))) + b"tQ"


def tensor(
    offset: object, size: object, stride: object, *, base: bytes = b"", more: object = ()
) -> bytes:
    view = map(plain, (offset, size, stride, False, {}, *more))
    return called("torch._utils._rebuild_tensor_v2", base or storage(), *view)


def program(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def write_zip(path: Path, content: bytes, *, compression: int = 0, **records: bytes) -> Path:
    records = {"data.pkl": content, "data/0": SIX.tobytes(), **records}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, value in records.items():
            archive.writestr(f"some/{name}", value)
    return path


def legacy(
    content: bytes, *, magic: int = 0x1950A86A20F9469CFC6C, little: bool = True, stored: int = 1
) -> list[bytes]:
    system = {"protocol_version": 1001, "little_endian": little, "type_sizes": {"int": 4}}
    head = [pickle.dumps(value, 2) for value in (magic, 1001, system)]
    keys = pickle.dumps(["0"][:stored], 2)
    return [*head, content, keys, *[struct.pack("<q", 6) + SIX.tobytes()][:stored]]


def write_legacy(path: Path, parts: list[bytes]) -> Path:
    path.write_bytes(b"".join(parts))
    return path


# Round trips


def test_what_is_written_reads_back_bit_for_bit(tmp_path):
    path = tmp_path / "new" / "model.pth"
    write_pickled(path, example())
    assert_same(read_pickled(path), example())
    assert [entry.name for entry in path.parent.iterdir()] == ["model.pth"]


@settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), max_size=20),
        st.sampled_from(DTYPES[:3] + DTYPES[4:]).flatmap(
            lambda dtype: arrays.arrays(
                dtype, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
            )
        ),
        max_size=4,
    )
)
def test_any_names_and_shapes_read_back_bit_for_bit(tmp_path, tensors):
    write_pickled(tmp_path / "a.pth", tensors)
    assert_same(read_pickled(tmp_path / "a.pth"), tensors)


def test_tensors_are_views_of_the_file_begin_aligned_and_change_in_memory_only(tmp_path):
    path = tmp_path / "a.pth"
    write_pickled(path, example())
    read = read_pickled(path)
    for name, value in read.items():
        if value.size:
            assert value.ctypes.data % 64 == 0, name
            base = value
            while isinstance(base, np.ndarray):
                base = base.base
            assert isinstance(base, mmap.mmap), name
    read["kind.float32"][:] = 7
    assert_same(read_pickled(path), example())


def test_a_file_is_overwritten_while_it_is_read(tmp_path):
    write_pickled(tmp_path / "a.pth", example())
    before = read_pickled(tmp_path / "a.pth")
    write_pickled(tmp_path / "a.pth", {"a": SIX})
    assert_same(before, example())
    assert_same(read_pickled(tmp_path / "a.pth"), {"a": SIX})


def test_a_failed_write_leaves_what_was_there(tmp_path):
    class Broken(dict):
        def values(self):
            yield SIX
            raise OSError("no memory")

    write_pickled(tmp_path / "a.pth", example())
    with pytest.raises(InputError, match=r"a\.pth: cannot be written \(no memory\)"):
        write_pickled(tmp_path / "a.pth", Broken(a=SIX, b=SIX))
    assert_same(read_pickled(tmp_path / "a.pth"), example())
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.pth"]


@pytest.mark.parametrize("dtype", [">f4", "U3", "O", "u2"])
def test_a_dtype_that_pytorch_lacks_is_not_written(dtype, tmp_path):
    with pytest.raises(PickledError, match=r"a\.pth: wrong is .*, must be one of float64, float32"):
        write_pickled(tmp_path / "a.pth", {"wrong": np.zeros(2, dtype)})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_views_share_their_storage(compression, tmp_path):
    body = b"(" + tensor(0, (2, 3), (3, 1)) + tensor(1, (3, 2), (1, 3 - 1)) + storage() + b"t"
    path = write_zip(tmp_path / "a.bin", program(body), compression=compression)
    matrix, view, whole = read_pickled(path)
    np.testing.assert_array_equal(matrix, SIX.reshape(2, 3))
    np.testing.assert_array_equal(view, [[1, 3], [2, 4], [3, 5]])
    np.testing.assert_array_equal(whole, SIX)
    matrix[0, 1] = 9
    assert view[0, 0] == whole[1] == 9


@pytest.mark.parametrize("name", ["data.pkl", "data/0"])
def test_a_compressed_file_may_not_grow_without_bound(name, tmp_path):
    content = program(tensor(0, (6,), (1,)))
    bomb = {"data.pkl": content, name: bytes(2**26 + 1)}
    path = write_zip(
        tmp_path / "a.pth", bomb.pop("data.pkl"), compression=zipfile.ZIP_DEFLATED, **bomb
    )
    assert path.stat().st_size < 2**17
    with pytest.raises(PickledError, match="compressed, and 64 times as large or more"):
        read_pickled(path)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("tensors", "rejected"),
    [
        ([((2**20,), (0,))], True),
        ([((2**10, 2**10, 2), (0, 0, 1))], True),
        ([((2**9, 5), (0, 1))] * 200, True),  # together
        ([((1,) * 30 + (2**40,), (0,) * 31)], True),
        ([((3, 2), (1, 3))] * 200, False),  # tied and transposed
    ],
)
def test_tensors_that_repeat_what_is_stored_may_not_grow_without_bound(
    old, tensors, rejected, tmp_path
):
    path = tmp_path / "a.pth"
    named = (pickle.dumps(f"t{i}", 2)[2:-1] + tensor(0, *view) for i, view in enumerate(tensors))
    body = program(b"}(" + b"".join(named) + b"u")
    write_legacy(path, legacy(body)) if old else write_zip(path, body)
    if not rejected:
        assert len(read_file(path)) == len(tensors)
        return
    with pytest.raises(InputError, match=r"a\.pth: its tensors repeat what it stores: .* 64 ti"):
        read_file(path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compression_without_bound_is_rejected(compression, tmp_path):
    path = write_zip(tmp_path / "a.pth", program(storage()), compression=compression)
    with pytest.raises(PickledError, match=r"a\.pth: compressed in another way"):
        read_pickled(path)


def test_no_more_is_expanded_than_a_record_says(tmp_path):
    path = write_zip(
        tmp_path / "a.pth",
        program(storage()),
        compression=zipfile.ZIP_DEFLATED,
        **{"data/0": bytes(2**24)},
    )
    content = path.read_bytes().replace(struct.pack("<I", 2**24), struct.pack("<I", 24))
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with suppress(PickledError):
            read_pickled(path)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("record", [program(storage()), SIX.tobytes()])
def test_a_flipped_bit_is_noticed_unless_checksums_were_left_out(tmp_path, record):
    path = write_zip(tmp_path / "a.pth", program(storage()))
    whole = path.read_bytes()
    place = whole.index(record) + len(record) - 3
    flipped = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
    path.write_bytes(flipped)
    with pytest.raises(PickledError, match=r"a\.pth: damaged: the record data.* not fit its check"):
        read_pickled(path)
    for name in ("data.pkl", "data/0"):  # as PyTorch does when it is told to
        with zipfile.ZipFile(path) as archive:
            number = struct.pack("<I", archive.getinfo(f"some/{name}").CRC)
        whole = whole.replace(number, bytes(4))
        path.write_bytes(whole)
    read_pickled(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["data.pkl", "data/0", "version"])
def test_two_records_of_one_name_are_rejected(name, tmp_path):
    path = write_zip(tmp_path / "a.pth", program(storage()), version=b"3")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"some/{name}", b"other")
    with pytest.raises(PickledError, match=r"a\.pth: damaged: holds two records of one name"):
        read_pickled(path)


def test_expanded_scalar_empty_and_untyped_tensors(tmp_path):
    untyped = storage(kind="torch.storage.UntypedStorage", count=24)
    short = called(
        "torch._utils._rebuild_tensor_v3",
        untyped,
        *map(plain, (1, (2,), (2,), False, {})),
        named("torch.uint16"),
    )
    views = [tensor(4, (2, 3), (0, 0)), tensor(5, (), ()), tensor(99, (0, 3), (3, 1)), short]
    path = write_zip(tmp_path / "a.bin", program(b"(" + b"".join(views) + b"t"))
    expanded, scalar, empty, short = read_pickled(path)
    np.testing.assert_array_equal(expanded, np.full((2, 3), 4, np.float32))
    assert (scalar.shape, float(scalar)) == ((), 5.0)
    assert empty.shape == (0, 3)
    np.testing.assert_array_equal(short, SIX.view(np.uint16)[1:5:2])


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("old", [False, True])
def test_plain_containers_of_every_binary_protocol(old, protocol, tmp_path):
    content = OrderedDict(
        numbers=[0, -1, 300, 70000, 2**70, 1.5, 1 + 2j, True, False, None],
        text=("é", "x" * 300, b"", b"\x00\xff", b"y" * 300),
        nested={"a": [{}, (), [], (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)], 5: {1, "b"}},
        many=list(range(3000)),
    )
    content["again"] = content["many"]
    path, pickled = tmp_path / "a.bin", pickle.dumps(content, protocol)
    write_legacy(path, legacy(pickled, stored=0)) if old else write_zip(path, pickled)
    read = read_pickled(path)
    assert (type(read), read) == (OrderedDict, content)
    assert read["again"] is read["many"]


def test_text_of_python_2_is_read(tmp_path):
    body = b"}(U\x01aT\x02\x00\x00\x00bcK\x01K\x02"  # {"a": "bc", 1: 2}, as bytes strings
    assert read_pickled(write_zip(tmp_path / "a.bin", program(body + b"u"))) == {"a": "bc", 1: 2}


def test_a_legacy_file_is_read(tmp_path):
    body = b"(" + tensor(0, (2, 3), (3, 1)) + tensor(1, (2,), (3,)) + b"t"
    matrix, view = read_pickled(write_legacy(tmp_path / "a.bin", legacy(program(body))))
    np.testing.assert_array_equal(matrix, SIX.reshape(2, 3))
    matrix[0, 1] = 9
    np.testing.assert_array_equal(view, [9, 4])


# Hostile pickles


def harmful(marker: Path) -> dict[str, bytes]:
    """Pickles by name that, read by `pickle`, make the file `marker`."""
    touch, make = f"touch {marker}", f"open({str(marker)!r}, 'w').close()"

    class Reduced:
        def __reduce__(self):
            return os.system, (touch,)

    class Evaluated:
        def __reduce__(self):
            return eval, (make,)

    class Nested:
        def __reduce__(self):
            return OrderedDict, ([("state_dict", Reduced())],)

    found = {
        f"{kind.__name__.lower()} by protocol {protocol}": pickle.dumps(kind(), protocol)
        for kind in (Reduced, Evaluated, Nested)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    }

    def short(text: str) -> bytes:
        return b"\x8c" + bytes([len(text)]) + text.encode()

    argument = b"X" + struct.pack("<I", len(touch)) + touch.encode()
    dotted = short("zipfile") + short("os.system") + b"\x93"
    return found | {
        "the first of many": pickle.dumps({"a": [Reduced()], "b": Evaluated()}, 2),
        "a key": b"\x80\x02}" + called("os.system", argument) + b"K\x01s.",
        "a dotted name": b"\x80\x04" + dotted + argument + b"\x85R.",
        "INST": b"(" + argument + b"ios\nsystem\n.",
        "OBJ": b"(cos\nsystem\n" + argument + b"o.",
        "EXT1": b"\x80\x02\x82\xf0" + argument + b"\x85R.",
        "EXT2": b"\x80\x02\x83\xf0\x00" + argument + b"\x85R.",
        "EXT4": b"\x80\x02\x84\xf0\x00\x00\x00" + argument + b"\x85R.",
        "NEWOBJ": named("builtins.list")
        + named("builtins.map")
        + (b"(" + named("os.system") + b"]" + argument + b"at\x81\x85R."),
        "getattr": called("builtins.getattr", called("builtins.__import__", b"Vos\n"), b"Vsystem\n")
        + argument
        + b"\x85R.",
    }


@pytest.fixture
def extension():
    """A code that stands for `os.system`, should a program register one."""
    copyreg.add_extension("os", "system", 0xF0)
    yield
    copyreg.remove_extension("os", "system", 0xF0)


@pytest.mark.usefixtures("extension")
@pytest.mark.parametrize("name", harmful(Path("marker")))
def test_a_harmful_pickle_is_rejected_and_does_not_run(name, tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "a.pth"
    content = harmful(marker)[name]
    pickle.loads(content)
    assert marker.exists()  # it does harm
    marker.unlink()

    writes = [partial(write_zip, path, content)]
    for place in range(5):
        parts = legacy(program(b"}"))
        parts[place] = content
        writes.append(partial(write_legacy, path, parts))
    for write in writes:
        write()
        with pytest.raises(PickledError, match=r"a\.pth: .*(names '|holds the instruction)"):
            read_pickled(path)
        assert not marker.exists()


@pytest.mark.parametrize(
    "name",
    [
        *("torch.load", "torch.hub.load", "torch.jit.load", "torch._utils._rebuild_sparse_tensor"),
        *("torch._utils._rebuild_qtensor", "torch.QInt8Storage", "numpy.ndarray", "numpy.dtype"),
        *("numpy.core.multiarray._reconstruct", "argparse.Namespace", "builtins.bytearray"),
        *("copyreg._reconstructor", "collections.Counter", "functools.partial", "io.open"),
        *("glfa_jax.convert.pickled.read_pickled", "collections.OrderedDict.fromkeys"),
    ],
)
@pytest.mark.parametrize("dotted", [False, True])
def test_other_globals_are_rejected_by_name_even_where_they_are_not_called(name, dotted, tmp_path):
    first, _, rest = name.partition(".")
    body = plain(first) + plain(rest) + b"\x93" if dotted else named(name)
    with pytest.raises(PickledError, match=f"names '{name}', which could run code"):
        read_pickled(write_zip(tmp_path / "a.pth", program(body)))


def test_a_global_as_a_value_is_only_its_name(tmp_path):
    body = b"(" + named("torch.float16") + named("torch._utils._rebuild_tensor") + b"t"
    read = read_pickled(write_zip(tmp_path / "a.pth", program(body)))
    assert read == ("torch.float16", "torch._utils._rebuild_tensor")
    assert not any(callable(value) for value in read)


def test_text_is_not_a_function(tmp_path):
    body = plain("collections.OrderedDict") + b")R"
    with pytest.raises(PickledError, match="calls something that is no function"):
        read_pickled(write_zip(tmp_path / "a.pth", program(body)))


def test_the_state_of_a_mapping_is_dropped(tmp_path):
    mapping = called("collections.OrderedDict") + plain("a") + b"K\x01s"
    state = b"}" + plain("items") + named("torch.Size") + b"s"
    read = read_pickled(write_zip(tmp_path / "a.pth", program(mapping + state + b"b")))
    assert (vars(read), list(read.items())) == ({}, [("a", 1)])


@pytest.mark.parametrize(
    "target", [tensor(0, (2,), (1,)), named("torch.Size"), b"}", b"]", called("builtins.set", b"]")]
)
@pytest.mark.parametrize("slots", [False, True])
def test_nothing_else_has_a_state(slots, target, tmp_path):
    state = b"}" + plain("shape") + plain((9,)) + b"s"
    state = b"N" + state + b"\x86" if slots else state  # (None, {"shape": (9,)})
    with pytest.raises(PickledError, match="sets the state of an object that has none"):
        read_pickled(write_zip(tmp_path / "a.pth", program(target + state + b"b")))


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (6, (), ()),
        (0, (7,), (1,)),
        (1, (6,), (1,)),
        (0, (3, 3), (2, 1)),
        (2**62, (1,), (1,)),
        (0, (5,), (2**60,)),
        (0, (3, 3), (2**61, 2**61)),  # in 64 bits their sum is 0
    ],
)
@pytest.mark.parametrize("old", [False, True])
def test_a_view_beyond_its_storage_is_rejected(old, offset, size, stride, tmp_path):
    path, body = tmp_path / "a.pth", program(tensor(offset, size, stride))
    write_legacy(path, legacy(body)) if old else write_zip(path, body)
    with pytest.raises(PickledError, match=r"a\.pth: holds a tensor that reaches beyond its"):
        read_pickled(path)


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (-1, (1,), (1,)),
        (0, (-1,), (1,)),
        (5, (2,), (-1,)),
        (0, (True,), (1,)),
        (0, (1.0,), (1,)),
        (0, "3", (1,)),
        (0, [3], [1]),
    ],
)
def test_a_shape_of_other_than_whole_numbers_is_rejected(offset, size, stride, tmp_path):
    with pytest.raises(PickledError, match=r"a\.pth: holds a shape that is no tuple of whole"):
        read_pickled(write_zip(tmp_path / "a.pth", program(tensor(offset, size, stride))))


def test_a_view_of_an_expanded_view_is_rejected(tmp_path):
    expanded = tensor(0, (1000,), (0,))
    body = tensor(0, (1000,), (1,), base=expanded)
    with pytest.raises(PickledError, match=r"a\.pth: truncated .*not contiguous"):
        read_pickled(write_zip(tmp_path / "a.pth", program(body)))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (tensor(0, (2,), (1,), more=({"conj": True},)), "conjugation or negation"),
        (b"}(K\x01tK\x01s", "a tuple as a key"),
        (called("builtins.set", b"](K\x01ta"), "a tuple as a key"),
        (called("builtins.set", tensor(0, (2**40,), (0,))), "a container from a ndarray"),
        (called("collections.OrderedDict", tensor(0, (2**40, 2), (0, 1))), "from a ndarray"),
        (named("builtins.complex") + tensor(0, (2**40,), (0,)) + b"R", "that are no tuple"),
        (b"}(K\x01\x90", "adds members to a dict"),
        (tensor(0, (2,), (1,)) + b"K\x00K\x01s", "sets items of a ndarray"),
        (called("_codecs.encode", plain("a"), plain("zip")), "bytes in another form"),
        (plain("module") + b"Q", "refers to an object that is no storage"),
        (b"Pmodule\n", "holds the instruction PERSID"),
        (b"K\x010", "holds the instruction POP"),
        (storage(count=7), r"storage 0 is truncated: 24 bytes, must be 28"),
        (storage(count=-1), "storage 0 is truncated"),
        (storage(key="1"), "no item named 'some/data/1'"),
        (storage(kind="torch.float32"), "truncated or no"),
        (b"h\x07", "truncated or no"),
        (b"K\x01K\x02", "truncated or no"),
        (b"", "truncated or no"),
        (b"\x8e" + struct.pack("<Q", 2**50), "truncated or no"),
        (b"r\xff\xff\xff\xff", "truncated or no"),
    ],
)
def test_what_no_checkpoint_holds_is_rejected(body, message, tmp_path):
    with pytest.raises(PickledError, match=rf"a\.pth: .*{message}"):
        read_pickled(write_zip(tmp_path / "a.pth", program(body)))


def test_storages_under_other_names_than_text_are_rejected(tmp_path):
    parts = legacy(program(b"}"))
    parts[4] = pickle.dumps([("0",)], 2)
    with pytest.raises(PickledError, match="its list of storages is no list of names"):
        read_pickled(write_legacy(tmp_path / "a.pth", parts))


def test_a_large_memo_index_takes_no_memory(tmp_path):
    body = b"K\x05r\xfe\xff\xff\x7f"
    assert read_pickled(write_zip(tmp_path / "a.pth", program(body))) == 5


@settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_whatever_is_damaged_there_is_one_kind_of_error(tmp_path, data):
    body = program(
        b"}(" + plain("a") + tensor(0, (2, 3), (3, 1)) + plain("b") + plain([1, 2]) + b"u"
    )
    if data.draw(st.booleans(), label="legacy"):
        path = write_legacy(tmp_path / "a.bin", legacy(body))
    else:
        path = write_zip(tmp_path / "a.bin", body)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with suppress(PickledError):
        read_pickled(path)


# Files that are no checkpoints


@pytest.mark.parametrize("kept", [0, 3, 5, 60, 200, -30, -1])
def test_a_truncated_file_is_named(kept, tmp_path):
    path = tmp_path / "a.pth"
    write_pickled(path, example())
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(PickledError, match=r"a\.pth: truncated or no PyTorch checkpoint"):
        read_pickled(path)


def test_a_truncated_legacy_file_is_named(tmp_path):
    whole = write_legacy(tmp_path / "a.bin", legacy(program(tensor(0, (2,), (1,))))).read_bytes()
    (tmp_path / "a.bin").write_bytes(whole[:-1])
    with pytest.raises(PickledError, match=r"storage 0 is truncated: 23 bytes, must be 24"):
        read_pickled(tmp_path / "a.bin")
    for kept in range(0, len(whole) - 24, 5):
        (tmp_path / "a.bin").write_bytes(whole[:kept])
        with pytest.raises(PickledError, match=r"a\.bin: truncated or no PyTorch"):
            read_pickled(tmp_path / "a.bin")


def test_a_record_that_the_file_is_too_short_for_is_named(tmp_path):
    path = write_zip(tmp_path / "a.pth", program(storage()))
    content = path.read_bytes()
    directory = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 1)  # of data/0
    sizes = struct.pack("<2I", 24_000, 24_000)
    path.write_bytes(content[: directory + 20] + sizes + content[directory + 28 :])
    with pytest.raises(PickledError, match="truncated or damaged at the record data/0"):
        read_pickled(path)


def test_big_endian_files_are_rejected(tmp_path):
    with pytest.raises(PickledError, match="big-endian"):
        read_pickled(write_zip(tmp_path / "a.pth", program(b"}"), byteorder=b"big"))
    with pytest.raises(PickledError, match="big-endian"):
        read_pickled(write_legacy(tmp_path / "a.pth", legacy(program(b"}"), little=False)))


def test_other_files_are_rejected(tmp_path):
    path = tmp_path / "a.pth"
    with pytest.raises(PickledError, match=r"a\.pth: no such file"):
        read_pickled(path)
    with pytest.raises(PickledError, match="is no plain file"):
        read_pickled(tmp_path)
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(PickledError, match=r"pipe\.pth: is no plain file"):
        read_pickled(tmp_path / "pipe.pth")
    with pytest.raises(PickledError, match="neither a zip file nor a legacy one"):
        read_pickled(write_legacy(path, legacy(program(b"}"), magic=7)))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "")
    with pytest.raises(PickledError, match="a zip file, but no PyTorch checkpoint"):
        read_pickled(path)
    path.write_bytes(b"sys_info".ljust(257, b"\0") + b"ustar  \0" + bytes(300))
    with pytest.raises(PickledError, match=r"a tar file, the format before PyTorch 0\.1\.10"):
        read_pickled(path)
    for content in (
        b"version https://git-lfs.github.com/spec/v1\n",
        b"<!DOCTYPE html>",
        b"\0" * 99,
    ):
        path.write_bytes(content)
        with pytest.raises(
            PickledError, match=r"a\.pth: .*(truncated|is a pointer|the instruction)"
        ):
            read_pickled(path)


# State dicts


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("nest", [None, "state_dict", "model", "model_state_dict", "module", "net"])
def test_tensors_are_found_by_name(nest, prefix):
    tensors = {"encoder.weight": SIX, "bias": SIX[:2]}
    held = {prefix + name: tensor for name, tensor in tensors.items()}
    content = held if nest is None else {"epoch": 3, nest: held, "optimizer": {"state": {}}}
    assert_same(state_dict(content, path="a.pth"), tensors)


def test_a_prefix_that_some_names_lack_stays():
    tensors = {"module.weight": SIX, "bias": SIX}
    assert_same(state_dict(tensors, path="a.pth"), tensors)


@pytest.mark.parametrize(
    ("content", "holds"),
    [
        ({"epoch": 3, "weights": {"a": SIX}}, "the keys 'epoch', 'weights'"),
        ({"model": {"a": 1}}, "the keys 'model'"),
        ({"model": {"a": SIX}, "net": {"a": SIX}}, "the keys 'model', 'net'"),
        ({"a": SIX, "b": 3}, "the keys 'a', 'b'"),
        ({0: SIX}, "the keys 0"),
        ({}, "nothing"),
        ([SIX], "a list"),
        (SIX, "a ndarray"),
    ],
)
def test_other_content_is_rejected_saying_what_it_is(content, holds):
    with pytest.raises(PickledError, match=rf"a\.pth: must hold tensors by name.*; holds {holds}$"):
        state_dict(content, path="a.pth")
