"""From the start of a command until it handles signals itself: no traceback while it imports.

Importing takes seconds, nothing is written meanwhile, and whoever presses Ctrl-C then, or a
scheduler that ends the job, gets a sentence too.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

# What ends a program without asking it. A terminal that is closed sends SIGHUP, not known
# everywhere.
STOPPING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
EXIT_INTERRUPTED = 130
EXIT_STOPPED = 75  # worth starting again (EX_TEMPFAIL)


def end_quietly() -> None:
    """Signals end the process with a sentence, at once. Ignored ones (`nohup`) stay ignored.

    For commands alone: `glfa-jax`, or `python -m` one of our modules, whose name is "-m" while it
    is looked for.
    """
    if sys.argv[:1] == ["-m"] or _by_console():
        for number in (signal.SIGINT, *STOPPING):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                signal.signal(number, end_at_once)


def end_at_once(number: int, _: FrameType | None) -> None:
    os.write(2, b"\nstopped while starting; nothing was begun\n")
    os._exit(EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_STOPPED)


def typed(command: str) -> str:
    """How a command is typed here: "train.cotrain" is `python -m train.cotrain` in a checkout, and
    `glfa-jax cotrain` where the package is installed alone or was started by that name."""
    by_module = _in_checkout(command)
    return f"python -m {command}" if by_module else f"glfa-jax {command.rpartition('.')[2]}"


def _in_checkout(command: str) -> bool:
    beside = Path(__file__).parents[1] / command.replace(".", "/")
    there = beside.is_dir() or beside.with_suffix(".py").is_file()
    return there and not _by_console()


def _by_console() -> bool:
    started = Path(sys.argv[0] if sys.argv else "")
    return started.stem == "glfa-jax" or started.parts[-2:] == ("glfa_jax", "__main__.py")


def program(command: str) -> list[str]:
    """The same as a program to start, with this interpreter."""
    names = [command] if _in_checkout(command) else ["glfa_jax", command.rpartition(".")[2]]
    return [sys.executable, "-m", *names]
