"""Carries out the tasks of a preparation, in this process or in several."""

import os
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Protocol

from tqdm import tqdm

from glfa_jax.data import DataError
from glfa_jax.errors import Terminated

# Below this many bytes of files, a process reads them sooner than another one has started.
SMALL = 2**28


class Task(Protocol):
    """Something that fills one piece of the scratch; it must pickle."""

    @property
    def sources(self) -> tuple[Path, ...]: ...

    def write(self, piece: Path) -> None: ...


def carry_out(
    tasks: Sequence[tuple[Task, Path]],
    *,
    workers: int | None,
    failed: Callable[[DataError], None],
    progress: bool,
) -> None:
    """Makes the pieces that are not there yet, the largest files first.

    `failed` is told why a task could not be done, and may raise to stop; what other processes are
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
