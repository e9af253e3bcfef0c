"""`python -m glfa_jax.report RUN` rebuilds the report of a run folder."""

import argparse
import sys
from pathlib import Path

from glfa_jax.report.inputs import ReportError
from glfa_jax.report.page import write


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m glfa_jax.report", description=__doc__)
    parser.add_argument("run", type=Path, help="run folder with metrics.json and samples/")
    try:
        path = write(parser.parse_args(arguments).run)
    except (ReportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"report: {path} (open it in a browser)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
