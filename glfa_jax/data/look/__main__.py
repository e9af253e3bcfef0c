"""`python -m glfa_jax.data.look STORE` writes a page that shows a prepared store."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from glfa_jax.data.look.page import write
from glfa_jax.data.store import Store
from glfa_jax.errors import InputError

CLIPS = 4


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m glfa_jax.data.look", description=__doc__)
    parser.add_argument("store", type=Path, metavar="STORE", help="what data.prepare wrote")
    parser.add_argument(
        "--out", type=Path, metavar="FILE.html", help="where to; beside the store if left out"
    )
    parser.add_argument(
        "--clips", type=int, default=CLIPS, metavar="N", help=f"clips to show, {CLIPS} by default"
    )
    options = parser.parse_args(arguments)
    path = options.store.resolve()
    target = options.out or path.with_name(f"{path.name.removesuffix('.zarr')}.html")
    try:
        if options.clips < 0:
            raise InputError(f"--clips: must be a number >= 0, got {options.clips}")
        write(Store.open(options.store), target, clips=options.clips, progress=True)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"page: {target} (open it in a browser)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
