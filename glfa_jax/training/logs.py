"""What a person sees of a run: JSON lines, TensorBoard, a progress bar."""

import json
import math
import sys
import time
from pathlib import Path

from tqdm import tqdm

from glfa_jax.files import write_atomically
from glfa_jax.training.board import open_board

_PLAIN_EVERY_SECONDS = 10.0


class Log:
    """Writes metrics to `log.jsonl` and TensorBoard files in a folder.

    A line is `{"step": 10, "time": unix seconds, "metrics": {...}}`. Lines after `step`, the step
    that training goes on from, and a line cut off by a kill, are dropped on opening.
    """

    def __init__(self, folder: Path, *, step: int):
        self._path, self._waiting = folder / "log.jsonl", b""
        kept = [line for line in read_log(folder) if line["step"] <= step]
        write_atomically(self._path, "".join(json.dumps(line) + "\n" for line in kept))
        self._size = self._path.stat().st_size
        self._board = open_board(folder / "tensorboard", step=step + 1)

    def write(self, step: int, *, metrics: dict[str, float]) -> None:
        """Where the disk is full, training goes on; lines are written when there is room again."""
        line = {"step": step, "time": time.time(), "metrics": metrics}
        waited, self._waiting = self._waiting, self._waiting + json.dumps(line).encode() + b"\n"
        try:
            with self._path.open("rb+") as file:
                file.truncate(self._size)  # what a failed write left
                file.seek(self._size)
                file.write(self._waiting)
            self._size, self._waiting = self._size + len(self._waiting), b""
        except OSError as error:
            if not waited:
                print(
                    f"{self._path}: cannot be written ({error.strerror}); going on, its lines will "
                    "be tried again",
                    file=sys.stderr,
                    flush=True,
                )
        for name, value in metrics.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        self._board.close()


def read_log(folder: Path) -> list[dict]:
    """The complete lines of a folder's `log.jsonl`, oldest first; none without the file.

    What a kill cut off, or a bad disk changed, is left out: no training depends on it.
    """
    path = folder / "log.jsonl"
    lines = []
    for text in path.read_bytes().split(b"\n") if path.is_file() else ():
        try:
            line = json.loads(text)
            if math.isfinite(line["step"]) and isinstance(line["metrics"], dict):
                lines.append(line)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            continue
    return lines


class Progress:
    """A bar with rate, time left and loss; where nobody watches, a plain line every 10 s."""

    def __init__(self, name: str, *, step: int, steps: int):
        self._name, self._first, self._steps = name, step, steps
        self._start = self._said = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=steps, initial=step, desc=name, unit="step")

    def update(self, step: int, *, loss: float) -> None:
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{loss:.4g}", refresh=False)
            self._bar.update(step - self._bar.n)
            return
        now = time.monotonic()
        if now - self._said < _PLAIN_EVERY_SECONDS:
            return
        self._said = now
        rate = (step - self._first) / (now - self._start)
        left = (self._steps - step) / rate
        print(
            f"{self._name}: step {step} of {self._steps}, loss {loss:.4g}, {rate:.3g} steps/s, "
            f"{left / 60:.1f} min left",
            flush=True,
        )

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
