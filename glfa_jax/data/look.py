"""`python -m glfa_jax.data.look STORE` writes a page that shows a prepared store."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from glfa_jax.cli import guarded
from glfa_jax.data.store import Store
from glfa_jax.errors import InputError
from glfa_jax.report.inspection.page import write
from glfa_jax.starting import typed

CLIPS = 4


def command(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=typed("glfa_jax.data.look"), description=__doc__)
    parser.add_argument("store", type=Path, metavar="STORE", help="what data.prepare wrote")
    parser.add_argument(
        "--out", type=Path, metavar="FILE.html", help="where to; beside the store if left out"
    )
    parser.add_argument(
        "--clips", type=int, default=CLIPS, metavar="N", help=f"clips to show, {CLIPS} by default"
    )
    options = parser.parse_args(arguments)
    return guarded(lambda: _look(options.store, options.out, options.clips))


def _look(store: Path, out: Path | None, clips: int) -> None:
    if clips < 0:
        raise InputError(f"--clips: must be a number >= 0, got {clips}")
    path = store.resolve()
    target = out or path.with_name(f"{path.name.removesuffix('.zarr')}.html")
    write(Store.open(store), target, clips=clips, progress=True)
    print(f"page: {target} (open it in a browser)")


if __name__ == "__main__":
    sys.exit(command())
