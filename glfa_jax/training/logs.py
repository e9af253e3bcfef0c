"""What a person sees of a run: JSON lines, TensorBoard, a progress bar."""

import json
import sys
import time
from pathlib import Path

from tqdm import tqdm

from glfa_jax.files import write_atomically

_PLAIN_EVERY_SECONDS = 10.0


class Log:
    """Writes metrics to `log.jsonl` and TensorBoard files in a folder.

    A line is `{"step": 10, "time": unix seconds, "metrics": {...}}`. Lines after `step`, the step
    that training goes on from, and a line cut off by a kill, are dropped on opening.
    """

    def __init__(self, folder: Path, *, step: int):
        # It imports torch where that is installed, for seconds; most commands write no log.
        from tensorboardX import SummaryWriter

        path = folder / "log.jsonl"
        kept = [line for line in read_log(folder) if line["step"] <= step]
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._lines = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, *, metrics: dict[str, float]) -> None:
        line = {"step": step, "time": time.time(), "metrics": metrics}
        self._lines.write(json.dumps(line) + "\n")
        self._lines.flush()
        for name, value in metrics.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        self._lines.close()
        self._board.close()


def read_log(folder: Path) -> list[dict]:
    """The complete lines of a folder's `log.jsonl`, oldest first; none without the file."""
    path = folder / "log.jsonl"
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:  # cut off by a kill
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
