"""A trace of some steps, which xprof (TensorBoard's profiler) opens: docs/profile.md."""

from pathlib import Path
from typing import Any

import jax

from glfa_jax.training.processes import say


class Profile:
    """Records the steps from `first` to `last`, both included, into `folder`; none without them."""

    def __init__(self, folder: Path, steps: tuple[int, int] | None):
        self._folder = folder
        self._first, self._last = steps or (0, 0)
        self._recording = False

    def before(self, step: int) -> None:
        """Called before a step is started; a run that goes on within the range begins there."""
        if self._first <= step <= self._last and not self._recording:
            jax.profiler.start_trace(self._folder)
            self._recording = True

    def after(self, step: int, results: Any) -> None:
        """Called with what the step gives, for which the last one waits."""
        if self._recording and step == self._last:
            jax.block_until_ready(results)
            self.close()

    def close(self) -> None:
        """Writes what is recorded so far; a run may end within the range."""
        if self._recording:
            self._recording = False
            jax.profiler.stop_trace()
            say(f"{self._folder}: a trace of steps up to {self._last}; xprof --logdir opens it")
