"""The process that reads inputs, and says of each what became of it."""

import faulthandler
import os
import resource
import shutil
import signal
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.fuzz.corpus import Case, Corpus
from benchmarks.fuzz.parser import Parser, Unnoticed
from glfa_jax.errors import InputError, TrainingError

GOOD = ("read", "rejected")
BAD = ("unnoticed", "sound", "traceback", "sentence", "hang", "memory", "crash")
# sentence: one that is long, of several lines, unprintable, or names nothing.
# sound: a file rejected that nobody has changed.
Kind = Literal[
    "read", "rejected", "unnoticed", "sound", "traceback", "sentence", "hang", "memory", "crash"
]

_LONGEST = 1000  # characters of a sentence


@dataclass(frozen=True)
class Limits:
    """seconds: of one input, on a machine that does nothing else. memory: bytes above what the
    process had, besides `times` the file."""

    seconds: float = 5.0
    memory: int = 2**28
    times: int = 20


@dataclass(frozen=True)
class Outcome:
    """says: the sentence or the traceback. taken: bytes of memory above what the process had."""

    case: Case
    kind: Kind
    says: str
    seconds: float
    taken: int


@dataclass(frozen=True)
class Start:
    """What a process has before an input. worked: seconds of processors. most: bytes that the
    input may take beside its `memory`."""

    memory: int = 0
    worked: float = 0.0
    most: int = 0


def serve(connection: Any, corpora: Mapping[str, Corpus], folder: Path, limits: Limits) -> None:
    quiet = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):  # libraries in C write what they like
        os.dup2(quiet, number)
    faulthandler.disable()
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
        before = resident(os.getpid())
        most = limits.memory + limits.times * len(content)
        _forget_peak()
        connection.send(Start(before, time.process_time(), most))
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
        lines = text.split("\n") if error.listed else [text]
        fault = _fault(lines, (str(folder), path.name, *parser.says))
        return ("sentence", f"{fault}: {text!r:.1500}") if fault else ("rejected", text)
    except Unnoticed as error:
        return "unnoticed", str(error)
    except BaseException as error:
        lines = f"{type(error).__name__}\n{traceback.format_exc().strip()}"
        return "traceback", lines if len(lines) < 8000 else f"{lines[:4000]}\n...\n{lines[-4000:]}"
    return "read", ""


def _fault(lines: Sequence[str], names: Sequence[str]) -> str | None:
    """What keeps lines, one but for what lists all it found, from being clear sentences."""
    if (longest := max(map(len, lines))) > _LONGEST:
        return f"{longest} characters"
    if not all(line.isprintable() for line in lines):
        return "not one line that can be printed"
    if not any(name in line for line in lines for name in names):
        return "names neither the file nor an option"
    return None


def resident(process: int) -> int:
    """Bytes of memory that a process has."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def processor_seconds(process: int) -> float:
    """What all threads of a process have worked."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _forget_peak() -> None:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
