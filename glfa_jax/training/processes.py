"""Several processes that train as one, and being asked to stop. Every process runs this program."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from glfa_jax import config
from glfa_jax.errors import InputError, TrainingError
from glfa_jax.files import reason
from glfa_jax.lock import only_one
from glfa_jax.starting import STOPPING


def start(processes: config.Processes) -> None:
    """Joins the others; must come before anything touches a device. Nothing to do for one."""
    if processes.found == "one" or jax.distributed.is_initialized():
        return
    given: dict[str, Any] = {}
    if processes.found == "given":
        given = {
            "coordinator_address": processes.coordinator,
            "num_processes": processes.count,
            "process_id": processes.index,
        }
    try:
        jax.distributed.initialize(**given)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"hardware.processes: cannot join the others ({reason(error)})"
        ) from None


def is_main() -> bool:
    """Whether this process speaks and writes for all."""
    return jax.process_index() == 0


def say(text: str) -> None:
    """Prints, once for all processes."""
    if is_main():
        print(text, flush=True)


def together(name: str) -> None:
    """Waits until every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def anywhere(here: bool) -> bool:
    """Whether it is so in any process."""
    if jax.process_count() == 1:
        return here
    return bool(np.any(multihost_utils.process_allgather(np.asarray(here))))


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """No other command works in a folder while the block lasts, or InputError on every process."""
    with ExitStack() as held:
        rejected = None
        if is_main():
            try:
                held.enter_context(only_one(folder))
            except InputError as error:
                rejected = error
        if anywhere(rejected is not None):
            raise rejected or InputError(f"{folder}: another command works here")
        yield


class StopRequest:
    """Whether a scheduler wants the machine back (SIGTERM), or the terminal was closed (SIGHUP),
    for this process or any other.

    While the block lasts, neither ends the process.
    """

    def __enter__(self) -> "StopRequest":
        self._asked, self._before = False, {}
        # With several, JAX listens itself, and lets all of them agree on the step.
        if jax.process_count() == 1:
            with suppress(ValueError):  # outside the main thread, which alone may listen
                for number in STOPPING:
                    if signal.getsignal(number) != signal.SIG_IGN:  # as by `nohup`
                        self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, *_: Any) -> None:
        self._asked = True

    def after(self, step: int) -> bool:
        """Whether to stop after this step; the same answer on every process."""
        if jax.process_count() == 1:
            return self._asked
        return multihost_utils.reached_preemption_sync_point(step)
