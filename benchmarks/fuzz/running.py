"""Inputs tried in processes that may hang, die or take all memory, and are watched from outside.

The readers run in processes forked from this one, which has imported all they need: one that is
killed is replaced within milliseconds.
"""

import multiprocessing
import shutil
import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from benchmarks.fuzz.corpus import Case, Corpus
from benchmarks.fuzz.serving import (
    Kind,
    Limits,
    Outcome,
    Start,
    processor_seconds,
    resident,
    serve,
)

_FORK = multiprocessing.get_context("fork")
_GLANCE = 0.05  # seconds between two looks at a reader's memory
_FIRST = 60.0, 2**32  # seconds and bytes, at most, before an input: a sound file is read
# A process that does not get its share of a busy machine is given more time, but not for ever.
_BUSY, _PATIENCE = 0.8, 4.0
_AHEAD = 16  # cases that a reader is handed, so that it need not wait for the next one


def run(
    corpora: Mapping[str, Corpus],
    cases: Iterable[Case],
    *,
    folder: Path,
    limits: Limits,
    workers: int = 2,
) -> Iterator[Outcome]:
    """Tries all cases. What took too long or too much is tried once more by a process that has done
    nothing else: the machine may have been busy, and a library may have loaded its tables."""
    left = iter(cases)
    pool = [_Reader(corpora, folder / f"reader{i}", limits) for i in range(workers)]
    again: deque[Case] = deque()  # tried for the first time, behind one that ended its process
    failed: deque[Case] = deque()
    try:
        while True:
            for reader in pool:
                if not reader.cases and failed:
                    reader.begin(failed.popleft(), anew=True)
                while len(reader.cases) < _AHEAD and not reader.alone:
                    case = again.popleft() if again else next(left, None)
                    if case is None:
                        break
                    reader.begin(case)
            busy = [reader for reader in pool if reader.cases]
            if not busy:
                return
            wait([reader.connection for reader in busy], timeout=_GLANCE)
            for reader in busy:
                alone = reader.alone
                for outcome in reader.glance():
                    if outcome.kind in ("hang", "memory") and not alone:
                        failed.append(outcome.case)
                    else:
                        yield outcome
                again.extend(reader.dropped())
    finally:
        for reader in pool:
            reader.end()


@dataclass
class _Reader:
    """A process that reads, seen from outside."""

    corpora: Mapping[str, Corpus]
    folder: Path
    limits: Limits
    cases: deque[Case] = field(default_factory=deque)  # the first one is being read
    alone: bool = False  # a process begun for the one case that it has
    connection: Any = None
    _left: list[Case] = field(default_factory=list)
    _process: Any = None
    _began: float = 0.0
    _looked: float = 0.0
    _start: Start | None = None

    def begin(self, case: Case, *, anew: bool = False) -> None:
        if anew or self._process is None:
            self.end()
            self.connection, theirs = _FORK.Pipe()
            arguments = (theirs, self.corpora, self.folder, self.limits)
            self._process = _FORK.Process(target=serve, args=arguments, daemon=True)
            self._process.start()
            theirs.close()
        if not self.cases:
            self._start, self._began = None, time.monotonic()
        self.alone = anew
        self.cases.append(case)
        with suppress(OSError):  # it has just ended, and `glance` will find that out
            self.connection.send(case)

    def glance(self) -> Iterator[Outcome]:
        """What has become of inputs; ends the process where one goes beyond the limits."""
        try:
            while self.connection.poll():
                told = self.connection.recv()
                self._start, self._began = told, time.monotonic()
                if isinstance(told, Outcome):
                    self.cases.popleft()
                    self._start, self.alone = None, False
                    yield told
        except (EOFError, ConnectionResetError):
            self._process.join()
            code = self._process.exitcode
            name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            yield self._over("crash", f"the process ended with {name}")
        if not self.cases:
            return
        if (now := time.monotonic()) - self._looked < _GLANCE:
            return
        self._looked = now
        start = self._start or Start(most=_FIRST[1])
        limit = self.limits.seconds if self._start else _FIRST[0]
        waited, worked = now - self._began, processor_seconds(self._process.pid) - start.worked
        if waited > limit and (worked > _BUSY * limit or waited > _PATIENCE * limit):
            yield self._over("hang", f"not read after {waited:.1f} s")
        elif (taken := resident(self._process.pid) - start.memory) > start.most:
            says = f"took {taken:,} bytes, {start.most:,} are allowed"
            yield self._over("memory", says, taken)

    def _over(self, kind: Kind, says: str, taken: int = 0) -> Outcome:
        case, *self._left = self.cases
        seconds = time.monotonic() - self._began
        self.end()
        return Outcome(case, kind, says, seconds, taken)

    def dropped(self) -> list[Case]:
        """The cases that waited behind one that was ended."""
        dropped, self._left = self._left, []
        return dropped

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self.connection.close()
        self._process, self.alone = None, False
        self.cases.clear()
        shutil.rmtree(self.folder, ignore_errors=True)  # may have been left amid an input
