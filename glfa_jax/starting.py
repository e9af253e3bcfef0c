"""From the start of a command until it handles signals itself: no traceback while it imports.

Importing takes seconds, nothing is written meanwhile, and whoever presses Ctrl-C then, or a
scheduler that ends the job, gets a sentence too.
"""

import os
import signal
import sys
from types import FrameType

# What ends a program without asking it. A terminal that is closed sends SIGHUP, not known
# everywhere.
STOPPING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
EXIT_INTERRUPTED = 130
EXIT_STOPPED = 75  # worth starting again (EX_TEMPFAIL)


def end_quietly() -> None:
    """Signals end the process with a sentence, at once. Ignored ones (`nohup`) stay ignored.

    For `python -m` one of our modules alone: while it is looked for, this stands for its name.
    """
    if sys.argv[:1] == ["-m"]:
        for number in (signal.SIGINT, *STOPPING):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                signal.signal(number, end_at_once)


def end_at_once(number: int, _: FrameType | None) -> None:
    os.write(2, b"\nstopped while starting; nothing was begun\n")
    os._exit(EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_STOPPED)
