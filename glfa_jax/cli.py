"""What every command shares: `--config`, `--set`, one sentence and exit code 2 for bad input."""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from glfa_jax import config
from glfa_jax.errors import InputError, Stopped, TrainingError

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_STOPPED = 75  # asked to stop, saved: worth starting again (EX_TEMPFAIL)


def run_main(
    main: Callable[..., None],
    *,
    schema: type[config.Section] = config.Config,
    description: str | None = None,
    compile_only: Callable[[Any, str, Path | None], None] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Reads the configuration named on the command line and calls `main` with it.

    With `--compile-only TOPOLOGY`, calls `compile_only` with it, the topology and the file for the
    report instead. `options`: more arguments by name, with what argparse is told about each; `main`
    gets them as keywords.

    What the user can mend ends as one sentence on stderr; a mistake of ours as a traceback.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
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
    arguments = parser.parse_args()

    def run() -> None:
        settings = config.load(arguments.config, arguments.set, schema=schema)
        if compile_only is not None and arguments.compile_only:
            compile_only(settings, arguments.compile_only, arguments.report)
        else:
            main(settings, **{name: getattr(arguments, name) for name in options or {}})

    sys.exit(guarded(run))


def guarded(
    call: Callable[[], object], *, after_stop: str = "the same command goes on from here"
) -> int:
    """Runs `call`; the exit code, after one sentence for a mistake of the user's.

    `after_stop`: what is said when it is interrupted.
    """
    try:
        call()
    except (InputError, TrainingError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except Stopped as stopped:
        print(f"{stopped}; {after_stop}", file=sys.stderr)
        return EXIT_STOPPED
    except KeyboardInterrupt:
        print(f"\nstopped; {after_stop}", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0
