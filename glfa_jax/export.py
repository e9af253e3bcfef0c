"""Writes a decoder as one folder that travels alone, and sends it to a hub if asked to.

    python -m glfa_jax.export runs/demo decoder --licence CC-BY-NC-4.0
    python -m glfa_jax.export runs/demo decoder --push owner/name

`glfa_jax.load` reads the folder; nothing else is needed. Its README.md is the model card.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from glfa_jax import hub
from glfa_jax.api import load
from glfa_jax.cli import guarded
from glfa_jax.starting import typed


def command(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog=typed("glfa_jax.export"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run, or an export")
    parser.add_argument("target", type=Path, metavar="FOLDER", help="new or an empty folder")
    parser.add_argument(
        "--adapted-minutes",
        type=float,
        metavar="N",
        help="with the layers that train.adapt fitted to so many minutes of new subjects",
    )
    for name in ("method", "data"):
        parser.add_argument(f"--{name}", help="of these layers, as train.adapt was given it")
    parser.add_argument(
        "--encoder",
        action="store_true",
        help="with the encoders that train.adapt trained behind these layers",
    )
    parser.add_argument("--licence", metavar="SPDX", help="of the weights, for the model card")
    parser.add_argument("--push", metavar="OWNER/NAME", help="send it to the Hugging Face hub too")
    parser.add_argument("--public", action="store_true", help="for everybody to see")
    given = parser.parse_args(arguments)
    return guarded(lambda: _export(given), after_stop="nothing was written")


def _export(given: argparse.Namespace) -> None:
    if given.push:
        hub.validate_name(given.push)
    decoder = load(
        given.run,
        adapted_minutes=given.adapted_minutes,
        method=given.method,
        data=given.data,
        encoder=given.encoder,
    )
    print(f"decoder: {decoder.export(given.target, licence=given.licence)}", flush=True)
    if given.push:
        print(f"sent: {hub.upload(given.target, given.push, private=not given.public, token=None)}")


if __name__ == "__main__":
    sys.exit(command())
