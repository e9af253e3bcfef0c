"""A preparation as pieces that are made once: by tasks, in one process or in several.

The pieces lie beside the store until it is whole. One is a folder that appears under its name only
when it is complete, so a preparation may be killed at any moment and goes on from those there are.
"""

import hashlib
import json
import os
import re
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any, Protocol, Self

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray
from tqdm import tqdm

from glfa_jax.data import DataError, reading
from glfa_jax.data.attributes import StoredFile
from glfa_jax.errors import Terminated
from glfa_jax.files import remove, sha256
from glfa_jax.lock import only_one
from glfa_jax.records import read

FORMAT = 3  # of the pieces
# Below this many bytes of files, a process reads them sooner than another one has started.
SMALL = 2**28


class Task(Protocol):
    """Something that fills one piece of the scratch; it must pickle.

    name: for people; key: stands for all that decides what is in the piece.
    """

    @property
    def name(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def sources(self) -> tuple[Path, ...]: ...

    def write(self, piece: Path) -> None: ...


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

    def pieces(self, kind: str, tasks: Sequence[Task]) -> list[tuple[Task, Path]]:
        """Every task with the folder of its piece."""
        names = (re.sub(r"[^A-Za-z0-9]+", "-", task.name)[-80:] for task in tasks)
        return [
            (task, self.folder / kind / f"{name}-{task.key[:24]}")
            for task, name in zip(tasks, names, strict=True)
        ]


@dataclass(frozen=True)
class Piece:
    """A finished piece: a folder, and what its about.json says."""

    piece: Path

    @classmethod
    def read(cls, piece: Path) -> Self:
        return read(cls, piece / "about.json", error=DataError, piece=piece)


def carry_out(
    tasks: Sequence[tuple[Task, Path]],
    *,
    workers: int | None,
    failed: Callable[[DataError], None],
    progress: bool,
) -> None:
    """Makes the pieces that are not there yet, the largest files first.

    `failed` is called where a task could not be done, and may raise to stop; what others work
    at is finished and kept even then.
    """
    sizes = [sum(p.stat().st_size for p in task.sources if p.exists()) for task, _ in tasks]
    order = sorted(range(len(tasks)), key=lambda i: -sizes[i])
    waiting = [i for i in order if not tasks[i][1].is_dir()]
    if workers is None:
        workers = 1 if sum(sizes[i] for i in waiting) < SMALL else _processors()
    bar = tqdm(
        total=len(tasks),
        initial=len(tasks) - len(waiting),
        disable=not progress,
        unit="piece",
        desc="read",
    )
    with bar, closing(_results(tasks, waiting, min(workers, len(waiting)))) as results:
        for error in results:
            if error is not None:
                failed(error)
            bar.update()


def _results(
    tasks: Sequence[tuple[Task, Path]], waiting: Sequence[int], workers: int
) -> Generator[DataError | None, None, None]:
    if workers <= 1:
        for i in waiting:
            yield _try(*tasks[i])
        return
    try:
        with _pool(workers) as pool:
            for future in as_completed([pool.submit(_try, *tasks[i]) for i in waiting]):
                yield future.result()
    except BrokenProcessPool:
        raise DataError(
            "a process that prepares the data was killed, perhaps for want of memory; run the same "
            "command again with a smaller data.workers, it goes on from what is finished"
        ) from None


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that end what they are at and then themselves, or at once when asked to stop."""
    before = set(active_children())
    # A forked process would inherit the locks of threads that it does not have.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_end_with_parent)
    try:
        try:
            yield pool
        except (Exception, GeneratorExit):
            pool.shutdown(cancel_futures=True)
            raise
    except (KeyboardInterrupt, Terminated):
        for process in set(active_children()) - before:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """A killed preparation leaves no process behind, and an interrupted one no traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _try(task: Task, piece: Path) -> DataError | None:
    """The reason why the piece cannot be made, as a value: exceptions would lose their class."""
    try:
        task.write(piece)
    except DataError as error:
        return error
    except OSError as error:
        return DataError(f"{error.filename or task.sources[0]}: cannot be read ({error.strerror})")
    return None


def _processors() -> int:
    """That this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1


def digest(sources: tuple[Path, ...], *settings: Any) -> str:
    """Of files, by name, size and time of change, and of what is done with them."""
    stats = []
    for path in sources:
        known = path.stat() if path.exists() else None  # whoever reads it says that it is missing
        stats.append((str(path), known and (known.st_size, known.st_mtime_ns)))
    text = json.dumps([FORMAT, version("glfa_jax"), stats, *settings])
    return hashlib.sha256(text.encode()).hexdigest()


def hashed(path: Path) -> StoredFile:
    """A file's entry in the provenance."""
    with reading(path, "file"), path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": sha256(file)}


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
