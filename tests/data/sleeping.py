"""A preparation that is never done: python -m tests.data.sleeping FOLDER."""

import os
import sys
import time
from pathlib import Path

from glfa_jax.cli import guarded
from glfa_jax.data.pieces import carry_out


class Sleeping:
    """Says in a file beside its piece which process is at it."""

    name, key = "sleeping", "0"
    sources: tuple[Path, ...] = ()

    def write(self, piece: Path) -> None:
        piece.with_suffix(".begun").write_text(str(os.getpid()))
        time.sleep(600)


if __name__ == "__main__":
    tasks = [(Sleeping(), Path(sys.argv[1]) / name) for name in "ab"]
    sys.exit(guarded(lambda: carry_out(tasks, workers=2, failed=print, progress=False)))
