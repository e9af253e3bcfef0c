"""Tries mutated files on every parser: no traceback, no hang, no memory that they do not explain.

    python -m benchmarks.fuzz --inputs 50000 --json benchmarks/results/fuzz.json
    python -m benchmarks.fuzz --seconds 60 --parsers events,cifti --keep failures
    python -m benchmarks.fuzz --replay failures/events-0-17-... --parsers events

Small sound files are made anew, changed (the same changes for the same seed), and read as the
commands read them. A parser may read a changed file, or reject it with one sentence that names it.
Everything else is a failure: another exception, more than 5 seconds, more memory than 20 times the
file and 256 MiB beside, the end of the process, and a sound file that is rejected.
"""

import argparse
import os
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

from benchmarks.fuzz import choosing, table
from benchmarks.fuzz.corpus import Case, Corpus, corpora
from benchmarks.fuzz.running import run
from benchmarks.fuzz.serving import BAD, Limits, Outcome
from benchmarks.measuring import write_result
from glfa_jax.cli import guarded
from glfa_jax.errors import InputError
from glfa_jax.files import write_atomically

_LINES = 12  # of a traceback
_PACKAGES = ("numpy", "nibabel", "h5py", "av", "PyYAML", "pydantic", "safetensors", "tensorstore")


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--inputs", type=int, metavar="N", help="how many, over all parsers")
    length.add_argument("--seconds", type=float, metavar="N", help="for how long; 60 if not said")
    length.add_argument("--replay", type=Path, metavar="FILE", help="this one input alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parsers", metavar="A,B", help="by name; all if not said")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the result")
    parser.add_argument("--text", type=Path, metavar="FILE", help="where to write what is printed")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="gets inputs that fail")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    arguments = _arguments(argv)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # nothing large is computed
    failed = []
    return guarded(lambda: failed.append(_fuzz(arguments))) or int(any(failed))


def _fuzz(arguments: argparse.Namespace) -> int:
    """The number of failures."""
    parsers = choosing.parsers(arguments.parsers)
    if arguments.replay and len(parsers) > 1:
        raise InputError("--replay: one parser must be named with --parsers, that of the file")
    limits, tally = Limits(), table.Tally([parser.name for parser in parsers])
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        made = corpora(parsers, folder / "sound")
        print(f"{sum(len(c.places) for c in made.values())} sound files made", flush=True)
        cases = _cases(arguments, made)
        for outcome in run(made, cases, folder=folder, limits=limits, workers=arguments.workers):
            new = tally.add(outcome)
            if outcome.kind in BAD and arguments.keep and tally.kept(outcome):
                choosing.keep(arguments.keep, outcome, made[outcome.case.parser])
            if new or arguments.replay:
                _say(outcome)
            if line := tally.progress():
                print(line, flush=True)
    text = tally.text(limits)
    print(f"\n{text}", end="")
    if arguments.text:
        write_atomically(arguments.text, text)
    facts = {"seed": arguments.seed, **tally.facts(limits)}
    write_result(arguments.json, facts, packages=_PACKAGES)
    return tally.failed


def _cases(arguments: argparse.Namespace, made: Mapping[str, Corpus]) -> Iterator[Case]:
    if arguments.replay:
        return iter([choosing.replayed(arguments.replay, next(iter(made.values())))])
    parsers = [corpus.parser for corpus in made.values()]
    length = {"inputs": arguments.inputs, "seconds": arguments.seconds}
    changed = choosing.cases(parsers, seed=arguments.seed, **length)
    return chain(*(corpus.sound(arguments.seed) for corpus in made.values()), changed)


def _say(outcome: Outcome) -> None:
    case = outcome.case
    lines = outcome.says.rstrip().splitlines()[-_LINES:]
    print(
        f"{outcome.kind}: {case.parser}, input {case.number} of seed {case.seed} "
        f"({outcome.seconds:.2f} s, {outcome.taken:,} bytes)\n"
        + textwrap.indent("\n".join(f"{line:.400}" for line in lines), "    "),
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
