"""One worker at a time: a second start of a command ends and says who works on its folder.

A lock is a file that says who holds it. It is made by a link, which no two processes can make at
once, on a disk that several hosts share either. Whether its holder still lives is asked of the
system where that is possible; on another host, it does while the file keeps changing.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

from glfa_jax import files
from glfa_jax.errors import InputError

BEAT = 5.0  # seconds between two signs of life
SILENCE = 20.0  # seconds without one, after which a holder on another host is taken for dead

_held: set[Path] = set()  # by this process, which may ask again


@dataclass(frozen=True)
class Holder:
    """machine: what two processes share that can see each other; started: of a process, in ticks
    since the machine's start, so that a number used again is not taken for it."""

    host: str
    machine: str
    process: int
    started: str
    since: str

    @classmethod
    def me(cls) -> "Holder":
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        host, process = socket.gethostname(), os.getpid()
        return cls(host, _machine(), process, _started(process), since)

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since}"

    @property
    def seen_from_here(self) -> bool:
        return self.machine == _machine()

    @property
    def lives(self) -> bool:
        """Only for one that is seen from here."""
        return files.is_alive(self.process) and _started(self.process) == self.started


@contextmanager
def only_one(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Holds the lock of a folder, `folder/.lock`; the folder is made where it is not there.

    Raises InputError where another process holds it; with `wait`, says so and waits for it. A
    folder that must not be written to is not locked: nothing is done in it.
    """
    path = folder.absolute() / ".lock"
    # By a command that calls another one; or nothing is done here.
    if path in _held or (folder.is_dir() and not os.access(folder, os.W_OK)):
        yield
        return
    made = [place for place in (folder, *folder.absolute().parents) if not place.exists()]
    try:
        with files.writing(folder):
            mine = _take(path, wait=wait)
        with _beating(path, mine):
            yield
    finally:
        with suppress(OSError):  # not empty, as they should be
            for place in made:
                place.rmdir()


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


@contextmanager
def _beating(path: Path, mine: Holder) -> Iterator[None]:
    """Gives signs of life, and the lock back."""
    _held.add(path)
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(path, mine, ended), daemon=True)
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()
        _held.discard(path)
        if _holder(_content(path)) == mine:
            files.remove(path)


def _take(path: Path, *, wait: bool) -> Holder:
    said = False
    while not (mine := _made(path)):
        content = _content(path)
        if content is None:  # given back just now
            continue
        holder = _holder(content)
        who = str(holder or "a process that has not said its name")
        if holder is None or not holder.seen_from_here:
            print(f"{path.parent}: {who}, worked here; is it still there?", flush=True)
            alive = _stirs(path, content)
        else:
            alive = holder.lives
        if not alive:
            _break(path, content)
        elif wait:
            if not said:
                print(f"{path.parent}: {who}, works here; waiting for its end", flush=True)
            said = True
            time.sleep(0.2)
        elif path.exists():
            raise InputError(
                f"{path.parent}: {who}, works here; wait for its end or stop it, then run the same "
                "command again, or choose another folder"
            )
    return mine


def _made(path: Path) -> Holder | None:
    """Makes the lock; None where there is one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    me, place = Holder.me(), files.aside(path)
    try:
        _write(place, me)
        try:
            os.link(place, path)
        except FileExistsError:
            return None
        except OSError:  # a file system without links
            try:
                with path.open("xb") as file:
                    file.write(place.read_bytes())
            except FileExistsError:
                return None
        return me
    except FileNotFoundError:  # who was here before has removed the folder
        return None
    finally:
        files.remove(place)


def _stirs(path: Path, content: bytes) -> bool:
    """Watches a lock for a sign of life, or of its end."""
    end = time.monotonic() + SILENCE
    while time.monotonic() < end:
        if _content(path) != content:
            return True
        time.sleep(SILENCE / 50)
    return False


def _break(path: Path, content: bytes) -> None:
    """Removes the lock of a dead process, and no other: of several that try, one succeeds."""
    stale = files.aside(path)
    with suppress(OSError):
        path.rename(stale)
        if _content(stale) != content:  # another one was faster, and this is its lock
            os.link(stale, path)
    files.remove(stale)


def _beat(path: Path, me: Holder, ended: threading.Event) -> None:
    """Signs of life for those who cannot see this process; a lock taken away is left alone."""
    count = 0
    while not ended.wait(BEAT):
        count += 1
        if _holder(_content(path)) == me:
            with suppress(OSError):  # a full disk, perhaps
                _write(path, me, beat=count)


def _write(path: Path, me: Holder, *, beat: int = 0) -> None:
    # In place, and always of one length: what others read meanwhile is never a part.
    text = json.dumps(asdict(me) | {"beat": f"{beat:010}"})
    with path.open("r+b" if path.exists() else "xb") as file:
        file.write(text.encode())


def _content(path: Path) -> bytes | None:
    """None without a lock; of one that must not be read, when its holder last gave a sign."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError:
        with suppress(OSError):
            return str(path.stat().st_mtime_ns).encode()
        return None


def _holder(content: bytes | None) -> Holder | None:
    """Whom a lock names; None where nobody can read it."""
    fields = Holder.__dataclass_fields__.values()
    try:
        entries = json.loads(content or b"")
        fits = all(type(entries[field.name]) is field.type for field in fields)
        return Holder(**{field.name: entries[field.name] for field in fields}) if fits else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


@cache
def _machine() -> str:
    """Two containers on one host may share its name and its start, not their numbers."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _started(process: int) -> str:
    """When a process of this machine was started; empty where that cannot be known, or for one
    that has ended and waits to be noticed."""
    with suppress(OSError, IndexError):
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        state, *fields = text.rpartition(")")[2].split()
        return "" if state == "Z" else fields[18]
    return ""
