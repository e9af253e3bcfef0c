"""HDF5 files: a data set of numbers that lies in the file itself, all of it."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glfa_jax.data import DataError, reading
from glfa_jax.data.claims import AT_ONCE, check_size
from glfa_jax.files import MOST_TEXT

MOST_LINKS = 32  # to a data set, one through the other


@contextmanager
def open_dataset(path: Path, key: str) -> Iterator[Any]:
    """Numbers (time, ...); what goes wrong in the block is the file's fault."""
    import h5py

    with reading(path, "HDF5"), h5py.File(path, "r") as file:
        data = _follow(path, file, key)
        if not isinstance(data, h5py.Dataset):
            held = ", ".join(file) or "nothing"
            raise DataError(f"{path}: has no data set {key!r}, holds {held:.200}")
        if data.ndim < 2 or data.dtype.kind not in "fiu":
            raise DataError(
                f"{path}: {key!r} must hold numbers (time, ...), holds {data.dtype} {data.shape}"
            )
        check_size(path, volumes=data.shape[0], values=math.prod(data.shape[1:]))
        _check_storage(path, key, data)
        yield data


def _follow(path: Path, file: Any, key: str) -> Any:
    """What a key names. h5py itself would go through links that lead to other files."""
    import h5py

    place, names, links = file, key.split("/"), 0
    while names and place is not None:
        name = names.pop(0)
        if name in ("", "."):
            continue
        if not isinstance(place, h5py.Group):
            return None
        link = place.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise DataError(f"{path}: {key!r} lies in another file, must lie in this one")
        if not isinstance(link, h5py.SoftLink):
            place = place.get(name)
            continue
        if (links := links + 1) > MOST_LINKS:
            raise DataError(f"{path}: {key!r} is a link to itself")
        place = file if link.path.startswith("/") else place
        names = link.path.split("/") + names
    return place


def _check_storage(path: Path, key: str, data: Any) -> None:
    """Rejects values that lie elsewhere, cannot be unpacked or were never written."""
    import h5py

    made = data.id.get_create_plist()
    if data.is_virtual or made.get_external_count():
        raise DataError(f"{path}: {key!r} keeps its values in other files, must hold them itself")
    for number in range(made.get_nfilters()):
        code, _, _, name = made.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            name = bytes(name).decode("ascii", "replace") or f"number {code}"
            raise DataError(
                f"{path}: {key!r} is packed with a filter that is not installed ({name}); write it "
                "anew with gzip or without"
            )
    if data.chunks is None:
        there, wanted, what = data.id.get_storage_size(), data.nbytes, "bytes"
    else:
        chunk = math.prod(data.chunks) * data.dtype.itemsize
        if chunk > AT_ONCE:
            raise DataError(f"{path}: {key!r} has chunks of {chunk:,} bytes, at most {AT_ONCE:,}")
        there, what = data.id.get_num_chunks(), "chunks"
        wanted = math.prod(
            -(-length // part) for length, part in zip(data.shape, data.chunks, strict=True)
        )
    if there < wanted:
        raise DataError(f"{path}: {key!r} was not written to its end, {there} of {wanted} {what}")


def read_texts(path: Path, *, most: int) -> list[str]:
    """The texts (n,) of the one data set of texts that lies at the top of a file."""
    import h5py

    with reading(path, "HDF5"), h5py.File(path, "r") as file:
        found = {str(name): _follow(path, file, str(name)) for name in file}
        texts = [
            name
            for name, data in found.items()
            if isinstance(data, h5py.Dataset) and h5py.check_string_dtype(data.dtype)
        ]
        if len(texts) != 1:
            raise DataError(
                f"{path}: must hold one data set of texts, {len(texts) or 'none'} of "
                f"{', '.join(file) or 'nothing':.200} is"
            )
        data = found[texts[0]]
        if data.ndim != 1 or len(data) > most:
            raise DataError(
                f"{path}: {texts[0]!r} must be a list of at most {most:,} texts, has shape "
                f"{data.shape}"
            )
        _check_storage(path, texts[0], data)
        read, letters, given = data.asstr(), 0, []
        for number in range(len(data)):  # one at a time: all of them may be one long text
            given.append(str(read[number]))
            if (letters := letters + len(given[-1])) > MOST_TEXT:
                raise DataError(f"{path}: {texts[0]!r} holds more than {MOST_TEXT:,} letters")
        return given
