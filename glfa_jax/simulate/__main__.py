"""Writes a simulated study: python -m glfa_jax.simulate --root DIR [--subjects 4 ...]."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_origin

from pydantic import ValidationError

from glfa_jax.cli import guarded
from glfa_jax.config import Simulation
from glfa_jax.errors import InputError
from glfa_jax.simulate.study import write_study
from glfa_jax.starting import typed


def command(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 2 after one sentence for bad input."""
    parser = argparse.ArgumentParser(prog=typed("glfa_jax.simulate"), description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder of the study, to be made")
    for name, field in Simulation.model_fields.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            default=argparse.SUPPRESS,
            nargs="*" if get_origin(field.annotation) is tuple else None,
            help=f"{field.description or name.replace('_', ' ')} (default: {field.default})",
        )
    given = vars(parser.parse_args(arguments))
    root = given.pop("root")
    return guarded(lambda: _simulate(given, root))


def _simulate(given: dict[str, Any], root: Path) -> None:
    try:
        simulation = Simulation.model_validate(given)
    except ValidationError as mistakes:
        raise InputError("; ".join(map(_sentence, mistakes.errors()))) from None
    write_study(simulation, root)
    print(f"{root}: {simulation.subjects} subjects. Next: {typed('glfa_jax.data.prepare')}")


def _sentence(mistake: Any) -> str:
    if not mistake["loc"]:  # a rule about several options, which names the one it is about
        return str(mistake["ctx"]["error"])
    option = str(mistake["loc"][0]).replace("_", "-")
    return f"--{option}: {mistake['msg']}, got {mistake['input']!r}"


if __name__ == "__main__":
    sys.exit(command())
