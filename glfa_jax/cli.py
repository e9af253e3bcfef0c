"""What every command shares: `--config`, `--set`, one sentence and exit code 2 for bad input."""

import argparse
import codecs
import os
import shlex
import signal
import string
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from threading import Timer
from typing import Any

from glfa_jax import config
from glfa_jax.errors import InputError, Stopped, Terminated, TrainingError
from glfa_jax.files import reason
from glfa_jax.starting import EXIT_INTERRUPTED, EXIT_STOPPED, STOPPING, end_at_once, typed

EXIT_BAD_INPUT = 2
# Schedulers signal every process of a job, and some of them signal their own: not to be asked twice
# while one is tidying up.
SAME_REQUEST = 5.0  # seconds


def run_main(
    main: Callable[..., None],
    arguments: Sequence[str] | None = None,
    *,
    command: str,
    schema: type[config.Section] = config.Config,
    description: str | None = None,
    compile_only: Callable[[Any, str, Path | None], None] | None = None,
    plan: Callable[[Any], None] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> int:
    """Reads the configuration named on the command line and calls `main` with it; the exit code.

    arguments: of the command line, without its name. command: as in `starting.typed`.

    With `--compile-only TOPOLOGY`, calls `compile_only` with it, the topology and the file for the
    report instead; with `--plan`, `plan`. `options`: more arguments by name, each with those of
    argparse; `main` gets them as keywords.

    What the user can mend ends as one sentence on stderr; a mistake of ours as a traceback.
    """
    parser = argparse.ArgumentParser(
        prog=typed(command),
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML configuration")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override, such as cotrain.steps=100",
    )
    for name, about in (options or {}).items():
        parser.add_argument(f"--{name}", **about)
    if compile_only is not None:
        parser.add_argument(
            "--compile-only",
            metavar="TOPOLOGY",
            help="only compile, for a TPU slice such as v5e:2x2, or for the devices here; says "
            "what a step needs",
        )
        parser.add_argument("--report", type=Path, metavar="FILE", help="keeps that as JSON")
    if plan is not None:
        parser.add_argument(
            "--plan",
            action="store_true",
            help="only say what each stage will hold in memory and on disk, in seconds",
        )
    given = parser.parse_args(arguments)

    def run() -> None:
        settings = config.load(given.config, given.set, schema=schema)
        if plan is not None and given.plan:
            plan(settings)
            return
        if compile_only is not None and given.compile_only:
            compile_only(settings, given.compile_only, given.report)
        else:
            main(settings, **{name: getattr(given, name) for name in options or {}})

    return guarded(run)


def guarded(
    call: Callable[[], object], *, after_stop: str = "the same command goes on from here"
) -> int:
    """Runs `call`; the exit code, after one sentence for a mistake of the user's.

    `after_stop`: what is said when it is interrupted, by Ctrl-C or by a scheduler.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal may know no other letters than ASCII
            stream.reconfigure(errors="glfa_jax.spelt")
    with _Signals() as signals:
        try:
            call()
        except BaseException as error:
            # Libraries make what they like of an interrupt: an ImportError, for one.
            asked = signals.asked
            if isinstance(error, Stopped):
                print(f"{error}; {after_stop}", file=sys.stderr)
                return EXIT_STOPPED
            if asked == signal.SIGINT or isinstance(error, KeyboardInterrupt):
                print(f"\nstopped; {after_stop}", file=sys.stderr)
                return EXIT_INTERRUPTED
            if asked is not None or isinstance(error, Terminated):
                name = signal.Signals(asked or signal.SIGTERM).name
                print(f"\nasked to stop ({name}); {after_stop}", file=sys.stderr)
                return EXIT_STOPPED
            if isinstance(error, (InputError, TrainingError)):
                print(f"error: {error}", file=sys.stderr)
                return EXIT_BAD_INPUT
            if isinstance(error, MemoryError):
                print(f"error: there is not enough memory ({reason(error)})", file=sys.stderr)
                return EXIT_BAD_INPUT
            if isinstance(error, OSError):
                print(f"error: {_named(error)}", file=sys.stderr)
                return EXIT_BAD_INPUT
            raise
    return 0


def _named(error: OSError) -> str:
    if error.filename is None or error.strerror is None:
        return reason(error)
    return f"{error.filename}: {error.strerror}"


_PLAIN = (string.ascii_letters + string.digits + " _./=-").encode()


def command_line(*parts: object) -> str:
    """A command as a shell takes it, in one line that this terminal can show."""
    return " ".join(_quoted(str(part)) for part in parts)


def _quoted(word: str) -> str:
    with suppress(UnicodeEncodeError):
        word.encode(sys.stdout.encoding or "ascii")
        if word.isprintable():
            return shlex.quote(word)
    # As bytes, which the shells of today take in quotes of this kind.
    spelt = [chr(b) if b in _PLAIN else f"\\x{b:02x}" for b in os.fsencode(word)]
    return f"$'{''.join(spelt)}'"


def next_step(command: str, *arguments: object) -> str:
    """What to type next, and where."""
    command = f"{typed(command)} {command_line(*arguments)}"
    return f"relative paths count from {command_line(Path.cwd())}\nnext: {command}"


# What our sentences hold besides ASCII, where a terminal cannot show it.
_SPELT = {"±": "+-", "×": "x", "→": "->", "↑": "^", "↓": "v", "–": "-", "—": "-", "…": "..."}


def _spell(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    spelt = (_SPELT.get(c) or c.encode("ascii", "backslashreplace").decode() for c in text)
    return "".join(spelt), error.end


codecs.register_error("glfa_jax.spelt", _spell)


class _Signals:
    """SIGTERM and SIGHUP end a command as Ctrl-C does: what it has begun is tidied up.

    asked: the signal that came first.
    """

    asked: int | None = None
    _when = 0.0

    def __enter__(self) -> "_Signals":
        self._before: dict[int, Any] = {}
        with suppress(ValueError):  # outside the main thread, which alone may listen
            for number in (signal.SIGINT, *STOPPING):
                # Ignored (`nohup`, a shell's background) stays ignored.
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._stop)
        self._unraisable, sys.unraisablehook = sys.unraisablehook, self._swallowed
        return self

    def __exit__(self, *_: object) -> None:
        sys.unraisablehook = self._unraisable
        for number, handler in self._before.items():
            asked = self.asked is not None and number in STOPPING
            if handler in (None, end_at_once) or (asked and handler == signal.SIG_DFL):
                # A command that is done is no longer starting, and its exit code is known: a
                # second request must not change it.
                handler = signal.SIG_DFL if number == signal.SIGINT else signal.SIG_IGN
            signal.signal(number, handler)

    def _stop(self, number: int, _: object) -> None:
        if self.asked is None:
            self.asked, self._when = number, time.monotonic()
        elif number in STOPPING and time.monotonic() - self._when < SAME_REQUEST:
            return
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated

    def _swallowed(self, about: Any) -> None:
        """Where nothing can be raised, as while an object is deleted, it is raised soon after."""
        if issubclass(about.exc_type, (KeyboardInterrupt, Terminated)):
            again = Timer(0.05, os.kill, (os.getpid(), self.asked or signal.SIGTERM))
            again.daemon, self.asked = True, None
            again.start()
        else:
            self._unraisable(about)
