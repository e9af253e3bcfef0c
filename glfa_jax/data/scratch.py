"""Finished pieces of a preparation, kept beside its store until the store is whole.

A piece is a folder that appears under its name only when it is complete, so a preparation may be
killed at any moment and goes on from the pieces that are there.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray

from glfa_jax.data import reading
from glfa_jax.files import remove
from glfa_jax.lock import only_one


class Scratch:
    """The pieces of one store; a second process that wants them waits until the first is done."""

    def __init__(self, store: Path):
        self.store = store
        self.folder = store.with_name(f".{store.name}.scratch")

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Leaving without an error removes every piece; an error keeps them for the next time."""
        with only_one(self.folder, wait=True):
            for half in self.folder.glob("*/.*"):  # of a process that was killed
                remove(half)
            try:
                yield
            except BaseException:
                if not any(self.folder.glob("*/*")):
                    remove(self.folder)
                raise
            remove(self.folder)

    def piece(self, kind: str, name: str, key: str) -> Path:
        """The folder of a piece; `key` stands for all that decides what is in it."""
        return self.folder / kind / f"{re.sub(r'[^A-Za-z0-9]+', '-', name)[-80:]}-{key[:24]}"


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Waits for other processes that write `path`; nothing is left beside it."""
    working = path.with_name(f".{path.name}.working")
    try:
        with only_one(working, wait=True):
            yield
    finally:
        with suppress(OSError):  # it is another process's now
            working.rmdir()


def write_rows(path: Path, rows: Iterator[ndarray], *, shape: Sequence[int], dtype: Any) -> None:
    """An .npy file from consecutive rows; a full disk raises OSError, where a map would crash."""
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": tuple(shape),
    }
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in rows:
            file.write(np.ascontiguousarray(block, dtype).data)


def write_array(path: Path, values: ndarray) -> None:
    write_rows(path, iter([values]), shape=values.shape, dtype=values.dtype)


def read_rows(path: Path, start: int = 0, count: int | None = None) -> Shaped[ndarray, "row ..."]:
    """Some rows of an .npy file, the others left on disk and unmapped."""
    with reading(path, "array of a preparation"), path.open("rb") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        count = shape[0] - start if count is None else count
        row = int(np.prod(shape[1:]))
        file.seek(start * row * dtype.itemsize, os.SEEK_CUR)
        return np.fromfile(file, dtype, count * row).reshape(count, *shape[1:])


def write_json(path: Path, tree: Any) -> None:
    path.write_text(json.dumps(tree), encoding="utf-8")
