"""Finished pieces of a preparation, kept beside its store until the store is whole.

A piece is a folder that appears under its name only when it is complete, so a preparation may be
killed at any moment and goes on from the pieces that are there.
"""

import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray

from glfa_jax.data import DataError

# What a write fails with when there is no more room: the disk, the user's share, a file's limit.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Scratch:
    """The pieces of one store; a second process that wants them waits until the first is done."""

    def __init__(self, store: Path):
        self.store = store
        self.folder = store.with_name(f".{store.name}.scratch")

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Leaving without an error removes every piece; an error keeps them for the next time."""
        lock = self._lock()
        try:
            for half in self.folder.glob("*/.*"):  # of a process that was killed
                shutil.rmtree(half, ignore_errors=True)
            yield
        except BaseException as error:
            if not any(self.folder.glob("*/*")):
                shutil.rmtree(self.folder, ignore_errors=True)
            if isinstance(error, NoRoom):
                raise DataError(
                    f"{self.store.parent}: disk full, needs up to {error.size:,} bytes at a time "
                    f"and had {error.free:,} free; make room and run the same command again, it "
                    "goes on from what is finished"
                ) from None
            raise
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        finally:
            lock.close()

    def piece(self, kind: str, name: str, key: str) -> Path:
        """The folder of a piece; `key` stands for all that decides what is in it."""
        return self.folder / kind / f"{re.sub(r'[^A-Za-z0-9]+', '-', name)[-80:]}-{key[:24]}"

    def _lock(self) -> IO[bytes]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / "lock").open("wb")
        except OSError as error:
            raise DataError(f"{self.store}: cannot be written ({error.strerror})") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{self.store}: another process prepares it, waiting", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
            self.folder.mkdir(exist_ok=True)  # the other process may have removed it
        except OSError:
            pass  # a file system without locks
        return file


@contextmanager
def filling(piece: Path) -> Iterator[Path]:
    """A folder to write a piece into; it gets the piece's name when the block ends well."""
    aside = piece.with_name(f".{piece.name}.{os.getpid()}")
    aside.mkdir(parents=True)
    try:
        yield aside
        aside.rename(piece)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_rows(path: Path, rows: Iterator[ndarray], *, shape: Sequence[int], dtype: Any) -> None:
    """An .npy file from consecutive rows; a full disk raises OSError, where a map would crash."""
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": tuple(shape),
    }
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    with naming_room(path, size), path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in rows:
            file.write(np.ascontiguousarray(block, dtype).data)


def write_array(path: Path, values: ndarray) -> None:
    write_rows(path, iter([values]), shape=values.shape, dtype=values.dtype)


def read_rows(path: Path, start: int = 0, count: int | None = None) -> Shaped[ndarray, "row ..."]:
    """Some rows of an .npy file, the others left on disk and unmapped."""
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        count = shape[0] - start if count is None else count
        row = int(np.prod(shape[1:]))
        file.seek(start * row * dtype.itemsize, os.SEEK_CUR)
        return np.fromfile(file, dtype, count * row).reshape(count, *shape[1:])


def write_json(path: Path, tree: Any) -> None:
    text = json.dumps(tree)
    with naming_room(path, len(text)):
        path.write_text(text, encoding="utf-8")


@contextmanager
def naming_room(path: Path, size: int) -> Iterator[None]:
    """A full disk becomes NoRoom; `size`: bytes to be written, at most.

    TensorStore raises ValueError with the system's words in it.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        number = error.errno if isinstance(error, OSError) else None
        if number not in NO_ROOM and not any(os.strerror(n) in str(error) for n in NO_ROOM):
            raise
        free = 0
        with suppress(OSError):
            free = shutil.disk_usage(path.parent).free
        raise NoRoom(size, free) from None


class NoRoom(DataError):
    """The disk is full: never the fault of one run, so never skipped.

    size, free: bytes that were to be written, and that were left then.
    """

    def __init__(self, size: int, free: int):
        super().__init__(size, free)
        self.size, self.free = size, free
