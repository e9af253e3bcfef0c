"""Files on disk: read with their damage named, written whole or not at all.

The one place that decides what counts as damage, what a full disk looks like, and how a file or
folder gets its name.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import uuid
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from glfa_jax.errors import InputError, Stopped, TrainingError

# What a write fails with when there is no more room: the disk, the user's share, a file's limit.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MOST_TEXT = 2**26  # bytes; no table, configuration or sidecar is as long
LONGEST_POINTER = 2**15  # bytes, as git-annex itself takes them; those of git-lfs are shorter
POINTER = re.compile(
    rb"version https://(git-lfs|hawser)\.github\.com/spec/|((\.\./)*\.git)?/annex/objects/"
)
# By how much a packed file may grow when it is unpacked; what is smaller than ALWAYS may.
EXPANSION, ALWAYS = 64, 2**26
CHECKSUMS = "SHA256SUMS"  # in the format that `sha256sum -c` reads
_LISTED = re.compile("([0-9a-f]{64}) [ *]([^/]+)")  # one of its lines

_HOST = socket.gethostname().partition(".")[0]


# --- reading --------------------------------------------------------------------------------------


@contextmanager
def reading(
    path: Path, kind: str, *, error: type[InputError] = InputError, remedy: str = ""
) -> Iterator[None]:
    """Says of a file that it is not there, or that it is truncated or not of this `kind`.

    Readers of other libraries raise whatever they stumble over, so anything that is not one of our
    own sentences counts as damage: keep in the block what reads the file, and no more.
    remedy: what to do about it, where that is known.
    """
    todo = f"; {remedy}" if remedy else ""
    try:
        validate_regular(path, error=error)
        yield
    except (InputError, TrainingError, Stopped):
        raise
    except MemoryError:
        raise error(f"{path}: needs more memory than there is to be read as {kind}{todo}") from None
    except Exception as caught:
        if isinstance(caught, OSError) and caught.errno is not None:
            raise error(f"{path}: cannot be read ({caught.strerror}){todo}") from None
        raise error(f"{path}: truncated or no {kind} ({reason(caught)}){todo}") from None


def validate_regular(path: Path, *, error: type[InputError] = InputError) -> None:
    """Raises where there is no plain file: reading from a pipe, say, would wait for ever.

    Data sets kept with git hold links and short texts in place of files that were not fetched.
    """
    if not path.exists():
        if path.is_symlink():
            raise error(f"{path}: is a link to a file that is not there; fetch it (datalad get)")
        raise error(f"{path}: no such file")
    if not path.is_file():
        raise error(f"{path}: is no plain file")
    if _is_pointer(path):
        raise error(
            f"{path}: is a pointer of git-annex or git-lfs, not the file itself; fetch it "
            "(datalad get, git lfs pull)"
        )


def is_fetched(path: Path) -> bool:
    """Whether a plain file is there, and not what git-annex or git-lfs keep in its place."""
    return os.path.isfile(path) and not _is_pointer(path)  # some names no disk takes


def _is_pointer(path: Path) -> bool:
    return path.stat().st_size < LONGEST_POINTER and bool(POINTER.match(path.read_bytes()))


def reason(error: BaseException) -> str:
    """An exception's text in one line of bounded length; its class where it says nothing."""
    return one_line(str(error)) or type(error).__name__


def one_line(text: str) -> str:
    """What stands in a file, as a message can hold it."""
    return f"{' '.join(text.split()):.200}"


def read_text(path: Path, *, error: type[InputError] = InputError) -> str:
    """UTF-8 text, with or without the mark that some editors put in front."""
    with reading(path, "text", error=error):
        if (size := path.stat().st_size) > MOST_TEXT:
            raise error(f"{path}: {size:,} bytes, far more than such a file holds")
        content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as caught:
        raise error(f"{path}: must be UTF-8 text ({reason(caught)})") from None


def read_json(path: Path, *, error: type[InputError] = InputError) -> Any:
    text = read_text(path, error=error)
    try:
        return parse_json(text)
    except ValueError as caught:
        raise error(f"{path}: not valid JSON ({reason(caught)})") from None


def parse_json(text: str | bytes) -> Any:
    """Raises ValueError for whatever is no JSON."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of a key given twice nobody knows which value is meant."""
    found = dict(pairs)
    if len(found) < len(pairs):
        (key, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"{key!r:.50} is given twice")
    return found


def read_object(path: Path, *, error: type[InputError] = InputError) -> dict[str, Any]:
    content = read_json(path, error=error)
    if not isinstance(content, dict):
        raise error(f"{path}: must hold a JSON object")
    return content


def read_arrays(
    path: Path, kind: str, *, error: type[InputError] = InputError, remedy: str = ""
) -> dict[str, np.ndarray]:
    """All arrays of an .npz by name; none with objects in it, which could run code.

    One that grows too much when it is unpacked is rejected: a small file can claim any size.
    """
    with reading(path, kind, error=error, remedy=remedy):
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > max(ALWAYS, EXPANSION * path.stat().st_size):
            raise error(f"{path}: would take {size:,} bytes of memory, far more than a {kind}")
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        # A member that is no array comes as its bytes.
        return {name: array for name, array in found.items() if isinstance(array, np.ndarray)}


# --- writing --------------------------------------------------------------------------------------


def is_full(error: BaseException) -> bool:
    """Whether a write failed for want of room.

    TensorStore raises ValueError with the system's words in it.
    """
    number = error.errno if isinstance(error, OSError) else None
    return number in NO_ROOM or any(os.strerror(number) in str(error) for number in NO_ROOM)


@contextmanager
def writing(path: Path, *, error: type[InputError] = InputError) -> Iterator[None]:
    """Names the file in errors of the system while it is written."""
    try:
        yield
    except OSError as caught:
        if is_full(caught):
            free = 0
            with suppress(OSError):
                free = shutil.disk_usage(existing(path)).free
            raise error(
                f"{path}: cannot be written, the disk is full ({free:,} bytes free); make room "
                "and run the same command again"
            ) from None
        why = caught.strerror or reason(caught)
        source = caught.filename  # of what is written from, perhaps
        if isinstance(source, str) and not source.startswith(str(path.with_name(_marked(path)))):
            why = f"{source}: {why}"
        raise error(f"{path}: cannot be written ({why})") from None


def existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that is there."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def aside(path: Path) -> Path:
    """A name beside `path`, of no other writer's, for what will be renamed to it.

    What writers of `path` that were killed on this machine left behind is removed.
    """
    sweep(path)
    return path.with_name(f"{_marked(path)}{_HOST}-{os.getpid()}-{uuid.uuid4().hex[:8]}")


def _marked(path: Path) -> str:
    return f".{path.name}.partial-"


def sweep(path: Path) -> None:
    """Removes what killed writers of `path` left beside it; those still at work are spared."""
    with suppress(OSError):  # no such folder, or one that must not be written to
        for left in path.parent.iterdir():
            if left.name.startswith(_marked(path)) and not _at_work(left.name):
                remove(left)


def _at_work(name: str) -> bool:
    host, _, rest = name.rpartition(".partial-")[2].rpartition("-")[0].rpartition("-")
    if host != _HOST or not rest.isdecimal():
        return True  # of another machine, which alone can tell
    return is_alive(int(rest))


def is_alive(process: int) -> bool:
    """Whether a process of this machine runs."""
    if process < 1:  # would ask for a group of them
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):  # the latter for a number that none can have
        return False
    except OSError:
        pass  # another user's
    return True


def remove(path: Path) -> None:
    """A file or a folder, as far as the system lets us."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


@contextmanager
def whole_file(path: Path, *, suffix: str = "") -> Iterator[Path]:
    """A path to write a file to; it gets its name when the block ends well, else nothing is left.

    suffix: of the path, for writers that go by it.
    """
    with writing(path):
        place = aside(path)
        place = place.with_name(place.name + suffix)
        try:
            yield place
            with place.open("rb+") as file:
                os.fsync(file.fileno())
            place.replace(path)
        except BaseException:
            remove(place)
            raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill; it gets its name when the block ends well, else nothing is left."""
    with writing(path):
        place = aside(path)
        place.mkdir(parents=True)
        try:
            yield place
            place.rename(path)
        except BaseException:
            remove(place)
            raise


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file aside, then renames it: it has its old or its new content, never a part.

    One that holds the content already is left alone, so that a finished run may be read-only.
    """
    content = content.encode("utf-8") if isinstance(content, str) else content
    with suppress(OSError):
        if path.read_bytes() == content:
            return
    with whole_file(path) as place:
        place.write_bytes(content)


def savez_atomically(path: Path, **arrays: ArrayLike) -> None:
    """The same with arrays, as numpy's .npz."""
    with whole_file(path) as place, place.open("wb") as file:
        # Its stub takes what names no array for its own option.
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]


# --- checksums ------------------------------------------------------------------------------------


def sha256(file: BufferedReader) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()


def checksums_of(folder: Path) -> str:
    """The lines of `SHA256SUMS` for the files that lie in a folder."""
    lines = []
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name != CHECKSUMS:
            with path.open("rb") as file:
                lines.append(f"{sha256(file)}  {path.name}\n")
    return "".join(lines)


def verify_checksums(folder: Path, *, error: type[InputError] = InputError) -> None:
    """Raises where a file is not what `SHA256SUMS` in its folder says; one without is not checked.

    Files that it does not name are not looked at.
    """
    listed = folder / CHECKSUMS
    if not listed.exists():
        return
    lines = read_text(listed, error=error).splitlines() or [""]
    for number, line in enumerate(lines, start=1):
        if not (found := _LISTED.fullmatch(line)):
            raise error(f"{listed}: line {number} is no checksum and file name")
        wanted, path = found[1], folder / found[2]
        with reading(path, "file of this folder", error=error), path.open("rb") as file:
            given = sha256(file)
        if given != wanted:
            raise error(
                f"{path}: is not what was written (its checksum differs from {CHECKSUMS}); copy it "
                f"anew, or remove {CHECKSUMS} if you changed it on purpose"
            )
