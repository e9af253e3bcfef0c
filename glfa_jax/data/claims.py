"""What a scan may claim to hold, so that no header makes us wait, or take memory, without end."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from glfa_jax.data import DataError

MOST_VOLUMES = 100_000  # over a day at a TR of a second
MOST_VALUES = 2**27  # a volume; a whole brain at half a millimetre has less
MOST_UNPACKED = 1040  # bytes that gzip and its like can make of one
AT_ONCE = 2**30  # bytes to be unpacked at a time
_GZIP = b"\x1f\x8b"


def check_size(path: Path, *, volumes: int, values: int) -> None:
    """Rejects a series that holds nothing, or more than any scanner measures."""
    if not (0 < volumes <= MOST_VOLUMES and 0 < values <= MOST_VALUES):
        raise DataError(
            f"{path}: {volumes:,} volumes of {values:,} values, must be 1 to {MOST_VOLUMES:,} of 1 "
            f"to {MOST_VALUES:,}"
        )


@contextmanager
def unpacked(path: Path) -> Iterator[Any]:
    """The file's content, packed with gzip or not: the first bytes tell, whatever its name."""
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
        file.seek(0)
        yield _Gzip(fileobj=file) if packed else file


class _Gzip(gzip.GzipFile):
    """Gives no more at a time than a block of a series may take."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= AT_ONCE:
            found = super().read(AT_ONCE + 1)
            if len(found) > AT_ONCE:
                raise OSError(f"unpacks to more than {AT_ONCE:,} bytes")
            return found
        return super().read(size)


def most_bytes(path: Path, file: BinaryIO) -> int:
    """What can be unpacked from a file at most."""
    return path.stat().st_size * (MOST_UNPACKED if isinstance(file, _Gzip) else 1)
