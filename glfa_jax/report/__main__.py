"""`python -m glfa_jax.report RUN` rebuilds the report of a run folder."""

import argparse
import sys
from pathlib import Path

from glfa_jax.cli import guarded
from glfa_jax.report.page import write
from glfa_jax.starting import typed


def command(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=typed("glfa_jax.report"), description=__doc__)
    parser.add_argument("run", type=Path, help="run folder with metrics.json and samples/")
    run = parser.parse_args(arguments).run
    return guarded(lambda: print(f"report: {write(run)} (open it in a browser)"))


if __name__ == "__main__":
    sys.exit(command())
