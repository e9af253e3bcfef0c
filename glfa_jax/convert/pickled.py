"""PyTorch's checkpoints (`.pth`, `.bin`) without PyTorch, and without running what they say.

Tensors are views of the file mapped into memory: they cost nothing until they are used, and
changing one changes memory only.
"""

import io
import math
import mmap
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import ml_dtypes
import numpy as np

from glfa_jax import files
from glfa_jax.unpickle import Global, PickledError, load

_LEGACY_MAGIC, _LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_ALIGNMENT = 64  # bytes, as PyTorch aligns storages
_NESTS = ("state_dict", "model", "model_state_dict", "module", "net")

# Every dense type of PyTorch that numpy has; both call them by the same names.
_FLOAT8 = ("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu")
_STORAGES = {
    "torch.DoubleStorage": np.dtype(np.float64),
    "torch.FloatStorage": np.dtype(np.float32),
    "torch.HalfStorage": np.dtype(np.float16),
    "torch.BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch.LongStorage": np.dtype(np.int64),
    "torch.IntStorage": np.dtype(np.int32),
    "torch.ShortStorage": np.dtype(np.int16),
    "torch.CharStorage": np.dtype(np.int8),
    "torch.ByteStorage": np.dtype(np.uint8),
    "torch.BoolStorage": np.dtype(np.bool_),
    "torch.ComplexDoubleStorage": np.dtype(np.complex128),
    "torch.ComplexFloatStorage": np.dtype(np.complex64),
}
_WRITTEN = {dtype: name for name, dtype in _STORAGES.items()}
_UNTYPED = (np.uint16, np.uint32, np.uint64, *(getattr(ml_dtypes, f"float8_{k}") for k in _FLOAT8))
_DTYPES = {f"torch.{dtype.name}": dtype for dtype in (*_WRITTEN, *map(np.dtype, _UNTYPED))}
_STORAGES["torch.storage.UntypedStorage"] = np.dtype(np.uint8)

# What finds a storage by its key, element type and number of elements.
_Storages = Callable[[str, np.dtype, int], np.ndarray | None]


def read_pickled(path: str | Path) -> Any:
    """What a checkpoint holds: plain containers, numbers and strings, with tensors as arrays.

    Reads the zip format and the one before PyTorch 1.6. Raises PickledError where the file is
    missing, damaged or no checkpoint, and where it names anything but dense tensors and plain
    containers: functions, classes, numpy objects, sparse or quantised tensors.
    """
    path = Path(path)
    with files.reading(path, "PyTorch checkpoint", error=PickledError):
        try:
            return _read(path)
        except PickledError as error:
            raise PickledError(f"{path}: {error}") from None


def _read(path: Path) -> Any:
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        if mapped[:4] == b"PK\x03\x04":
            return _read_zip(file, mapped)
        if mapped[257:262] == b"ustar":
            raise PickledError("a tar file, the format before PyTorch 0.1.10, is not read")
        return _read_legacy(mapped)


def state_dict(content: Any, *, path: str | Path) -> dict[str, np.ndarray]:
    """The tensors by name in what `read_pickled` gave for `path`.

    They lie at the top or under one of the usual keys. A prefix `module.` that all names have,
    left by data-parallel training, is taken off.
    """
    nested = [content.get(key) for key in _NESTS] if isinstance(content, dict) else []
    found = [candidate for candidate in (content, *nested) if _is_state_dict(candidate)]
    if len(found) != 1:
        holds = f"a {type(content).__name__}"
        if isinstance(content, dict):
            keys = ", ".join(f"{key!r:.60}" for key in list(content)[:20])
            holds = f"the keys {keys}" if keys else "nothing"
        raise PickledError(
            f"{path}: must hold tensors by name, at the top or under exactly one of "
            f"{', '.join(_NESTS)}; holds {holds}"
        )
    tensors = found[0]
    prefix = "module." if all(name.startswith("module.") for name in tensors) else ""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def write_pickled(
    path: str | Path, tensors: Mapping[str, np.ndarray], *, key: str | None = None
) -> None:
    """Writes a state dict that `torch.load(path, weights_only=True)` reads, aside and then renamed.

    `key`: what it lies under in a dict of that one entry; it lies at the top when None. Raises
    PickledError for dtypes without a storage class in PyTorch.
    """
    path = Path(path)
    for name, tensor in tensors.items():
        if tensor.dtype not in _WRITTEN:
            known = ", ".join(dtype.name for dtype in _WRITTEN)
            raise PickledError(f"{path}: {name} is {tensor.dtype}, must be one of {known}")
    with files.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with (
        files.whole_file(path) as aside,
        aside.open("wb") as file,
        zipfile.ZipFile(file, "w") as archive,
    ):
        _write_record(file, archive, "data.pkl", _state_dict_pickle(tensors, key))
        _write_record(file, archive, "byteorder", b"little")
        for i, tensor in enumerate(tensors.values()):
            content = np.ascontiguousarray(tensor).reshape(-1).view(np.uint8)
            _write_record(file, archive, f"data/{i}", content.data)
        _write_record(file, archive, "version", b"3\n")


def _is_state_dict(value: Any) -> TypeGuard[dict[str, np.ndarray]]:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(k, str) and isinstance(v, np.ndarray) for k, v in value.items())
    )


def _read_zip(file: BinaryIO, mapped: mmap.mmap) -> Any:
    """A pickle and, beside it, one record for each storage."""
    archive = zipfile.ZipFile(file)
    names = archive.namelist()
    roots = [n.removesuffix("data.pkl") for n in names if n.endswith("/data.pkl")]
    if len(set(names)) != len(names):
        raise PickledError("damaged: holds two records of one name")
    if len(roots) != 1:
        raise PickledError("a zip file, but no PyTorch checkpoint: it must hold one data.pkl")

    expanded = 0

    @cache
    def record(name: str) -> np.ndarray:
        nonlocal expanded
        info = archive.getinfo(roots[0] + name)
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise PickledError("compressed in another way than zip files usually are")
        if info.compress_type == zipfile.ZIP_DEFLATED:
            expanded += info.file_size
            if expanded > max(files.ALWAYS, files.EXPANSION * len(mapped)):
                raise PickledError(
                    f"compressed, and {files.EXPANSION} times as large or more when it is expanded"
                )
            with archive.open(info) as compressed:  # as much as it says, whatever there is
                return np.frombuffer(bytearray(compressed.read(info.file_size)), np.uint8)
        # The record lies behind a header of its own, whose length only that header tells.
        signature, lengths = struct.unpack_from("<4s22x4s", mapped, info.header_offset)
        start = info.header_offset + 30 + sum(struct.unpack("<HH", lengths))
        if signature != b"PK\x03\x04" or start + info.file_size > len(mapped):
            raise PickledError(f"truncated or damaged at the record {name:.40}")
        content: Any = np.ndarray((info.file_size,), np.uint8, mapped, start)
        if info.CRC not in (
            0,
            zlib.crc32(memoryview(content)),
        ):  # 0: PyTorch was told to leave them out
            raise PickledError(f"damaged: the record {name:.40} does not fit its checksum")
        return content

    def storage(key: str, dtype: np.dtype, count: int) -> np.ndarray:
        return _storage(record(f"data/{key}"), key, dtype, count)

    if roots[0] + "byteorder" in names and record("byteorder").tobytes() != b"little":
        raise PickledError("written on a big-endian machine; only little-endian files are read")
    return _load(io.BytesIO(record("data.pkl").tobytes()), storage)


def _read_legacy(mapped: mmap.mmap) -> Any:
    """Pickles one after the other (magic, protocol, machine, content, keys), then the storages."""

    def none(*_: Any) -> None:
        return None

    if _load(mapped, none) != _LEGACY_MAGIC or _load(mapped, none) != _LEGACY_PROTOCOL:
        raise PickledError("no PyTorch checkpoint: neither a zip file nor a legacy one")
    if not _load(mapped, none)["little_endian"]:
        raise PickledError("written on a big-endian machine; only little-endian files are read")

    # Where a storage lies depends on the types of those before it, which the content tells:
    # so the content is read once without storages, and once with them.
    start, dtypes, places = mapped.tell(), {}, {}

    def note(key: str, dtype: np.dtype, count: int) -> None:
        dtypes.setdefault(key, dtype)

    _load(mapped, note)
    keys = _load(mapped, none)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise PickledError("damaged: its list of storages is no list of names")
    position = mapped.tell()
    for key in keys:
        (count,) = struct.unpack_from("<Q", mapped, position)
        places[key] = (position + 8, count * dtypes[key].itemsize)
        position = sum(places[key])

    def storage(key: str, dtype: np.dtype, count: int) -> np.ndarray:
        offset, size = places[key]
        size = min(size, max(0, len(mapped) - offset))
        return _storage(np.ndarray((size,), np.uint8, mapped, offset), key, dtype, count)

    mapped.seek(start)
    return _load(mapped, storage)


def _storage(content: np.ndarray, key: str, dtype: np.dtype, count: int) -> np.ndarray:
    size = count * dtype.itemsize
    if not 0 <= size <= content.size:
        raise PickledError(f"storage {key:.40} is truncated: {content.size} bytes, must be {size}")
    return content[:size].view(dtype)


def _load(stream: Any, storages: _Storages) -> Any:
    """The object of the pickle at the stream's position, with tensors on these storages."""

    def persistent(identity: Any) -> np.ndarray | None:
        match identity:
            case ("storage", Global() as kind, str() as key, str(), int() as count, *view):
                if any(view):
                    raise PickledError("holds views of storages, as PyTorch before 0.4 wrote them")
                return storages(key, _STORAGES[kind], count)
        raise PickledError("refers to an object that is no storage")

    return load(stream, functions=_FUNCTIONS, names={*_STORAGES, *_DTYPES}, persistent=persistent)


def _tensor(
    storage: np.ndarray | None,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    requires_grad: bool = False,
    hooks: Any = None,
    metadata: Any = None,
    dtype: Global | None = None,
) -> np.ndarray | None:
    """A view of a storage, all in elements; None while there is no storage yet."""
    if storage is None:
        return None
    if metadata:
        raise PickledError("holds a tensor whose conjugation or negation is still to be done")
    if isinstance(dtype, Global):
        storage = storage.view(_DTYPES[dtype])
    (offset,), size, stride = _whole((offset,)), _whole(size), _whole(stride)
    if 0 in size:
        return np.zeros(size, storage.dtype)
    steps = ((count - 1) * step for count, step in zip(size, stride, strict=True))
    if offset + sum(steps) >= storage.size:
        raise PickledError("holds a tensor that reaches beyond its storage")
    width = storage.itemsize
    return np.ndarray(size, storage.dtype, storage, offset * width, [s * width for s in stride])


def _tensor_v3(storage: Any, *arguments: Any) -> np.ndarray | None:
    """The dtypes without a storage class lie in untyped storages and come with their dtype."""
    *view, dtype, metadata = arguments if len(arguments) == 7 else (*arguments, None)
    return _tensor(storage, *view, metadata=metadata, dtype=dtype)


def _whole(numbers: Any) -> tuple[int, ...]:
    if not isinstance(numbers, tuple) or any(type(n) is not int or n < 0 for n in numbers):
        raise PickledError("holds a shape that is no tuple of whole numbers")
    return numbers


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "torch.Size": _whole,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": lambda data, requires_grad, hooks: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, requires_grad, hooks, state: data,
}


def _state_dict_pickle(tensors: Mapping[str, np.ndarray], key: str | None) -> bytes:
    """The instructions that PyTorch's reader takes, in protocol 2."""

    def plain(value: Any) -> bytes:
        return pickle.dumps(value, 2)[2:-1]  # without the first and the last instruction

    def called(name: bytes, *arguments: bytes) -> bytes:
        return b"c" + name + b"\n(" + b"".join(arguments) + b"tR"

    empty = called(b"collections\nOrderedDict")
    nest, close = (b"", b"u.") if key is None else (b"}" + plain(key), b"us.")
    parts = [b"\x80\x02", nest, empty, b"("]
    for i, (name, tensor) in enumerate(tensors.items()):
        kind = b"c" + _WRITTEN[tensor.dtype].replace(".", "\n").encode() + b"\n"
        where = map(plain, (str(i), "cpu", tensor.size))
        storage = b"".join([b"(", plain("storage"), kind, *where, b"tQ"])
        stride = tuple(math.prod(tensor.shape[axis + 1 :]) for axis in range(tensor.ndim))
        view = map(plain, (0, tensor.shape, stride, False))
        parts += [plain(name), called(b"torch._utils\n_rebuild_tensor_v2", storage, *view, empty)]
    return b"".join([*parts, close])


def _write_record(
    file: BinaryIO, archive: zipfile.ZipFile, name: str, content: bytes | memoryview
) -> None:
    info = zipfile.ZipInfo(f"archive/{name}")
    # Padding in the record's header lets its content begin where PyTorch aligns it. The header
    # holds, besides the name, 20 bytes for the sizes of large files, always written here.
    begin = file.tell() + 30 + len(info.filename) + 20 + 4
    padding = -begin % _ALIGNMENT
    info.extra = b"FB" + struct.pack("<H", padding) + bytes(padding)
    with archive.open(info, "w", force_zip64=True) as record:
        record.write(content)
