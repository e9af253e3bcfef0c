"""TensorBoard's files, without the wait for ever that a full disk would bring.

tensorboardX writes in a thread of its own, which ends with the first error; the next lines of the
training would then wait for it. Here such an error ends the file instead: `log.jsonl` has it all.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

_SCHEME = "glfa_jax"


def open_board(folder: Path, *, step: int) -> Any:
    """A SummaryWriter whose earlier entries from `step` on are forgotten."""
    # It imports torch where that is installed, for seconds; most commands write no log.
    from tensorboardX import SummaryWriter
    from tensorboardX.record_writer import register_writer_factory

    register_writer_factory(_SCHEME, _Files)
    return SummaryWriter(f"{_SCHEME}:{folder.absolute()}", purge_step=step)


class _Files:
    """As tensorboardX asks for a place of its own kind."""

    @staticmethod
    def directory_check(path: str) -> None:
        Path(path.removeprefix(f"{_SCHEME}:")).mkdir(parents=True, exist_ok=True)

    @staticmethod
    def open(path: str) -> "_File":
        return _File(Path(path.removeprefix(f"{_SCHEME}:")))


class _File:
    def __init__(self, path: Path):
        self._file = path.open("wb", buffering=0)

    def write(self, content: bytes) -> None:
        if not self._file.closed:
            try:
                whole = self._file.write(content) == len(content)
            except OSError:
                whole = False
            if not whole:
                self._file.close()

    def flush(self) -> None:
        """Nothing is kept back."""

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()
