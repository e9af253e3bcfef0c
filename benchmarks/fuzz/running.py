"""Inputs tried in processes that may hang, die or take all memory, and are watched from outside.

The readers run in processes forked from this one, which has imported all they need: one that is
killed is replaced within milliseconds.
"""

import multiprocessing
import os
import resource
import shutil
import signal
import time
import traceback
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.fuzz.mutation import mutated
from benchmarks.fuzz.parser import Parser, Unnoticed
from glfa_jax.errors import InputError, TrainingError

GOOD = ("read", "refused")
BAD = ("unnoticed", "sound", "traceback", "sentence", "hang", "memory", "crash")
# sentence: one that is long, of several lines, unprintable, or names nothing.
# sound: a file refused that nobody has changed.
Kind = Literal[
    "read", "refused", "unnoticed", "sound", "traceback", "sentence", "hang", "memory", "crash"
]

_FORK = multiprocessing.get_context("fork")
_GLANCE = 0.05  # seconds between two looks at a reader's memory
_START = 120.0  # seconds, at most, for what is before the reading
_LONGEST = 1000  # characters of a sentence


@dataclass(frozen=True)
class Limits:
    """seconds: of one input. memory: bytes above what the process had, besides `times` the file."""

    seconds: float = 5.0
    memory: int = 2**28
    times: int = 20


@dataclass(frozen=True)
class Case:
    """Input `number` of a parser, as a function of the seed; a negative number is a sound file."""

    parser: str
    number: int
    seed: int = 0
    replaced: bytes | None = None  # a given content, instead of what the number says
    place: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """place, content: of the input; taken: bytes of memory above what the process had."""

    case: Case
    kind: Kind
    says: str
    seconds: float
    taken: int


@dataclass(frozen=True)
class Corpus:
    """The sound files of a parser in `folder`; places are relative to it."""

    parser: Parser
    folder: Path
    places: tuple[Path, ...]
    contents: tuple[bytes, ...]

    def input(self, case: Case) -> tuple[Path, bytes]:
        """Where an input goes and what it is."""
        if case.replaced is not None:
            return case.place or self.places[0], case.replaced
        if case.number < 0:
            return self.places[-1 - case.number], self.contents[-1 - case.number]
        name = zlib.crc32(self.parser.name.encode())
        rng = np.random.default_rng([case.seed, name, case.number])
        chosen = int(rng.integers(len(self.places)))
        suffix = self.places[chosen].suffix
        pairs = zip(self.places, self.contents, strict=True)
        alike = [content for place, content in pairs if place.suffix == suffix]
        words = self.parser.words
        return self.places[chosen], mutated(self.contents[chosen], rng, others=alike, words=words)

    def sound(self, seed: int = 0) -> list[Case]:
        """Every sound file as it is."""
        return [Case(self.parser.name, -1 - i, seed) for i in range(len(self.places))]


def corpora(parsers: Sequence[Parser], folder: Path) -> dict[str, Corpus]:
    """Makes the sound files, in a process of its own: libraries that have worked fork badly."""
    ours, theirs = _FORK.Pipe()
    maker = _FORK.Process(target=_make, args=(theirs, parsers, folder))
    maker.start()
    theirs.close()
    try:
        made = ours.recv()
    except EOFError:
        raise RuntimeError("the sound files could not be made; see above") from None
    maker.join()
    found = {}
    for parser in parsers:
        place = folder / parser.name
        contents = tuple((place / name).read_bytes() for name in made[parser.name])
        found[parser.name] = Corpus(parser, place, tuple(made[parser.name]), contents)
    return found


def _make(connection: Any, parsers: Sequence[Parser], folder: Path) -> None:
    made = {}
    for parser in parsers:
        place = folder / parser.name
        place.mkdir(parents=True)
        made[parser.name] = [path.relative_to(place) for path in parser.make(place)]
    connection.send(made)


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
    again: list[Case] = []
    failed: dict[Case, Kind] = {}
    try:
        while True:
            for reader in pool:
                if reader.case is None:
                    case = again.pop() if again else next(left, None)
                    if case is not None:
                        reader.begin(case, anew=case in failed)
            busy = [reader for reader in pool if reader.case is not None]
            if not busy:
                return
            wait([reader.connection for reader in busy], timeout=_GLANCE)
            for reader in busy:
                outcome = reader.glance()
                if outcome is None:
                    continue
                first = outcome.case not in failed
                if outcome.kind in ("hang", "memory") and first:
                    failed[outcome.case] = outcome.kind
                    again.append(outcome.case)
                else:
                    failed.pop(outcome.case, None)
                    yield outcome
    finally:
        for reader in pool:
            reader.end()


@dataclass
class _Reader:
    """A process that reads, seen from outside."""

    corpora: Mapping[str, Corpus]
    folder: Path
    limits: Limits
    case: Case | None = None
    connection: Any = None
    _process: Any = None
    _began: float = 0.0
    _looked: float = 0.0
    _start: tuple[int, int] | None = field(default=None)  # memory at first, and what it may be

    def begin(self, case: Case, *, anew: bool) -> None:
        if anew or self._process is None or not self._process.is_alive():
            self.end()
            self.connection, theirs = _FORK.Pipe()
            arguments = (theirs, self.corpora, self.folder, self.limits)
            self._process = _FORK.Process(target=_serve, args=arguments, daemon=True)
            self._process.start()
            theirs.close()
        self.case, self._start, self._began = case, None, time.monotonic()
        self.connection.send(case)

    def glance(self) -> Outcome | None:
        """What has become of the input; None while it is read and keeps within the limits."""
        try:
            while self.connection.poll():
                told = self.connection.recv()
                if isinstance(told, Outcome):
                    self.case = None
                    return told
                self._start, self._began = told, time.monotonic()
        except (EOFError, ConnectionResetError):
            self._process.join()
            code = self._process.exitcode
            name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            return self._over("crash", f"the process ended with {name}")
        now = time.monotonic()
        limit = self.limits.seconds if self._start else _START
        if now - self._began > limit:
            return self._over("hang", f"not read after {limit:g} s")
        if self._start and now - self._looked > _GLANCE:
            self._looked = now
            before, most = self._start
            if (taken := _resident(self._process.pid) - before) > most:
                return self._over("memory", f"took {taken:,} bytes, {most:,} are allowed", taken)
        return None

    def _over(self, kind: Kind, says: str, taken: int = 0) -> Outcome:
        case, seconds = self.case, time.monotonic() - self._began
        assert case is not None
        self.end()
        return Outcome(case, kind, says, seconds, taken)

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self.connection.close()
        self._process = self.case = None
        shutil.rmtree(self.folder, ignore_errors=True)  # may have been left amid an input


# --- in the process that reads --------------------------------------------------------------------


def _serve(connection: Any, corpora: Mapping[str, Corpus], folder: Path, limits: Limits) -> None:
    quiet = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):  # libraries in C write what they like
        os.dup2(quiet, number)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    parent = os.getppid()
    while True:
        while not connection.poll(1.0):
            if os.getppid() != parent:  # killed, and nobody will ask any more
                return
        case = connection.recv()
        corpus = corpora[case.parser]
        place = folder / case.parser
        if not place.exists():
            shutil.copytree(corpus.folder, place)
            with suppress(Exception):  # the first time, libraries load tables and compile
                corpus.parser.read(place / corpus.places[0])
        relative, content = corpus.input(case)
        path = place / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        before = _resident(os.getpid())
        most = limits.memory + limits.times * len(content)
        _forget_peak()
        connection.send((before, most))
        start = time.perf_counter()
        kind, says = _read(corpus.parser, path, place, sound=case.number < 0 and not case.replaced)
        seconds = time.perf_counter() - start
        taken = max(_peak() - before, 0)
        if kind in GOOD and taken > most:
            kind, says = "memory", f"took {taken:,} bytes, {most:,} are allowed"
        with suppress(OSError):
            path.write_bytes(corpus.contents[corpus.places.index(relative)])
        connection.send(Outcome(case, kind, says, seconds, taken))


def _read(parser: Parser, path: Path, folder: Path, *, sound: bool) -> tuple[Kind, str]:
    try:
        parser.read(path)
    except (InputError, TrainingError) as error:
        text = str(error)
        if sound:
            return "sound", text
        fault = _fault(text, (str(folder), path.name, *parser.says))
        return ("sentence", f"{fault}: {text!r:.1500}") if fault else ("refused", text)
    except Unnoticed as error:
        return "unnoticed", str(error)
    except BaseException:
        lines = traceback.format_exc().strip()
        return "traceback", lines if len(lines) < 4000 else f"{lines[:2000]}\n...\n{lines[-2000:]}"
    return "read", ""


def _fault(text: str, names: Sequence[str]) -> str | None:
    """What keeps a text from being one clear sentence."""
    if len(text) > _LONGEST:
        return f"{len(text)} characters"
    if not text.isprintable():
        return "not one line that can be printed"
    if not any(name in text for name in names):
        return "names neither the file nor an option"
    return None


def _resident(process: int) -> int:
    """Bytes of memory that a process has."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _forget_peak() -> None:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
