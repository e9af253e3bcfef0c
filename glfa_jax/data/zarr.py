"""How arrays lie in Zarr v3, for TensorStore; each of its errors becomes a sentence."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product, zip_longest
from pathlib import Path
from typing import Any

import tensorstore as ts

from glfa_jax import files
from glfa_jax.data import DataError
from glfa_jax.errors import InputError

_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
PACKED = {"name": "zstd", "configuration": {"level": 3, "checksum": True}}
PLAIN = {"name": "crc32c"}  # a checksum and no more

LONGEST = 2**20  # of an axis whose length only the array itself tells


@dataclass(frozen=True)
class Layout:
    """An array of samples, one a chunk of which `shard` share a file, or without it one chunk."""

    dtype: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    shard: int | None = None
    fill: Any = 0
    codec: Mapping[str, Any] | None = None  # PACKED
    attributes: Mapping[str, Any] | None = None

    @property
    def chunk(self) -> list[int]:
        """What a file holds."""
        if self.shard is None:
            return [max(length, 1) for length in self.shape]
        return [self.shard, *self.shape[1:]]

    def files(self) -> Iterator[str]:
        """Every file that the array may have; one that holds fill values only is not written."""
        counts = [-(-n // size) for n, size in zip(self.shape, self.chunk, strict=True)]
        for place in product(*map(range, counts)):
            yield "/".join(["c", *map(str, place)])

    def spec(self, folder: Path) -> dict[str, Any]:
        codecs: list[Mapping[str, Any]] = [_LITTLE, self.codec or PACKED]
        if self.shard is not None:
            sharding = {
                "chunk_shape": [1, *self.shape[1:]],
                "codecs": codecs,
                "index_codecs": [_LITTLE, PLAIN],
                "index_location": "end",
            }
            codecs = [{"name": "sharding_indexed", "configuration": sharding}]
        return {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": str(folder)},
            "metadata": {
                "shape": list(self.shape),
                "data_type": self.dtype,
                "dimension_names": list(self.axes),
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": self.chunk}},
                "chunk_key_encoding": {"name": "default"},
                "codecs": codecs,
                "fill_value": self.fill,
                **({"attributes": dict(self.attributes)} if self.attributes else {}),
            },
        }

    def create(self, folder: Path) -> Any:
        """For writing, and goes on with the same that is there; call it inside `writing`."""
        return ts.open(self.spec(folder), open=True, create=True).result()

    def open(self, folder: Path, *, sizes: Iterable[int | None] = ()) -> Any:
        """For reading; sizes: bytes of each of `files`, 0 where it need not be there, None where
        it must and the size is not known. A missing file would read as the fill value.

        Call it inside `reading`. TensorStore rejects an array that is not laid out like this
        before it sets memory aside for it.
        """
        files.validate_regular(folder / "zarr.json")
        array = ts.open(self.spec(folder), open=True, read=True).result()
        for name, size in zip_longest(self.files(), sizes, fillvalue=0):
            path = folder / str(name)
            if path.exists() or size != 0:
                files.validate_regular(path)
                if size and path.stat().st_size != size:
                    raise InputError(f"{path}: is not the file that was written")
        return array

    def sizes(self, folder: Path) -> list[int]:
        """Of each of `files`, 0 for those that are not there."""
        paths = [folder / name for name in self.files()]
        return [path.stat().st_size if path.exists() else 0 for path in paths]


def declared_shape(folder: Path) -> tuple[int, ...]:
    """What an array says of itself; call it inside `reading`."""
    shape = files.read_object(folder / "zarr.json")["shape"]
    if not all(type(n) is int and 0 <= n <= LONGEST for n in shape):
        raise InputError(f"a shape of {shape!s:.80}")
    return tuple(shape)


@contextmanager
def reading(
    store: Path, name: str, *, remedy: str = "remove the store and prepare it again"
) -> Iterator[None]:
    """Around nothing but the reading of an array: says that the store is damaged, and where."""
    try:
        yield
    except DataError:  # of another array
        raise
    except Exception as error:
        why = files.reason(error).partition(" [tensorstore_spec")[0]
        raise DataError(
            f"{store}: array {name} cannot be read, the store is damaged ({why}); {remedy}"
        ) from None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Names the file in errors of the system, which TensorStore raises as a ValueError."""
    with files.writing(path, error=DataError):
        try:
            yield
        except InputError:
            raise
        except ValueError as error:
            raise OSError(str(error)) from None
