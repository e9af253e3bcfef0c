"""Pictures in numpy's files: what an array claims to be is looked at before it is read."""

import math
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile

import numpy as np
from numpy import ndarray

from glfa_jax.data import DataError

MOST_BYTES = 2**28  # 8192 x 4096 pixels in 64 bits, less than 0.1 mm of a flat cortex each
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of the array that follows; raises ValueError."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"numpy format {version} is not read")
    shape, _, dtype = _HEADERS[version](file)
    return shape, dtype


def read_npy(path: Path) -> ndarray:
    with path.open("rb") as file:
        return _read(path, file)


def read_npz(path: Path, key: str) -> ndarray:
    """One array of an archive; raises DataError where it has none of this name."""
    with ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        if key not in names:
            held = ", ".join(names) or "nothing"
            raise DataError(f"{path}: must hold the key {key}, holds {held:.200}")
        with archive.open(archive.namelist()[names.index(key)]) as file:
            return _read(path, file)


def _read(path: Path, file: Any) -> ndarray:
    shape, dtype = read_header(file)
    if dtype.itemsize * math.prod(shape) > MOST_BYTES:
        raise DataError(
            f"{path}: must be one picture (height, width), claims to be {shape} of {dtype}"
        )
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)
