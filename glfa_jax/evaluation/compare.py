"""Compares scored runs as the paper's Table 2 does, and more carefully beside it.

    python -m eval.compare runs/glfa runs/glfa-seed1 runs/lea "small kernel=runs/k5"

A run is a folder that holds scores.json, or that file. Runs of one method with different seeds are
one method; LABEL=RUN calls a run's method LABEL. Every method is tested against the reference.
Prints Markdown, and leaves table.md, table.tex, index.html and comparison.json.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from glfa_jax.cli import guarded
from glfa_jax.comparison.differences import PAPERS_METHOD, Comparison, compare
from glfa_jax.comparison.methods import Run, grouped
from glfa_jax.errors import InputError
from glfa_jax.files import write_atomically
from glfa_jax.report.comparison.page import page
from glfa_jax.report.comparison.table import tables
from glfa_jax.report.comparison.text import latex, markdown
from glfa_jax.results import Scores
from glfa_jax.starting import typed

FORMAT = 1
_BOOTSTRAP_SEED = 0  # the same runs give the same intervals


def read_run(argument: str) -> Run:
    """A run as named on the command line: RUN or LABEL=RUN."""
    label, equals, path = argument.partition("=")
    if not equals or Path(argument).exists():
        return Run(argument, Scores.read(Path(argument)))
    if not label.strip() or not label.isprintable() or not path:
        raise InputError(f"{argument}: must be RUN or LABEL=RUN")
    return Run(path, replace(Scores.read(Path(path)), method=label))


def as_json(comparison: Comparison) -> str:
    """Every number; null is what is not finite: a deviation of one value, an effect that never
    varies."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(v) for key, v in value.items()}
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    content = {"format": FORMAT} | plain(asdict(comparison))
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def main(arguments: argparse.Namespace) -> None:
    methods = grouped([read_run(argument) for argument in arguments.run])
    comparison = compare(
        methods,
        reference=arguments.reference,
        metrics=arguments.metrics,
        bootstrap_seed=_BOOTSTRAP_SEED,
    )
    shown = tables(comparison, published=arguments.published)
    text = markdown(shown)
    folder: Path = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "table.md", text)
    write_atomically(folder / "table.tex", latex(shown))
    write_atomically(folder / "comparison.json", as_json(comparison))
    write_atomically(folder / "index.html", page(comparison, shown))
    print(text)
    print(f"comparison: {folder / 'index.html'} (open it in a browser)", flush=True)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=typed("eval.compare"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", nargs="+", metavar="RUN", help="RUN or LABEL=RUN")
    parser.add_argument(
        "--reference",
        metavar="METHOD",
        help=f"what the others are tested against; {PAPERS_METHOD} if there, else the first",
    )
    parser.add_argument("--metrics", nargs="+", metavar="NAME", help="these only, in this order")
    parser.add_argument("--published", action="store_true", help="the paper's Table 2 beside it")
    parser.add_argument(
        "--output", type=Path, default=Path("comparison"), metavar="DIR", help="%(default)s"
    )
    return parser.parse_args(arguments)


def command(arguments: Sequence[str] | None = None) -> int:
    given = parse(arguments)
    return guarded(lambda: main(given), after_stop="nothing is half written")
