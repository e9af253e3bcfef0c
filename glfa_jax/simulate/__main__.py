"""Writes a simulated study: python -m glfa_jax.simulate --root DIR [--subjects 4 ...]."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from glfa_jax.config import Simulation
from glfa_jax.simulate.study import write_study


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 2 after one sentence for bad input."""
    parser = argparse.ArgumentParser(prog="python -m glfa_jax.simulate", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder of the study, to be made")
    for name, field in Simulation.model_fields.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            default=argparse.SUPPRESS,
            help=f"{field.description or name.replace('_', ' ')} (default: {field.default})",
        )
    given = vars(parser.parse_args(arguments))
    root = given.pop("root")
    try:
        simulation = Simulation.model_validate(given)
        write_study(simulation, root)
    except ValidationError as mistakes:
        for mistake in mistakes.errors():
            option = str(mistake["loc"][0]).replace("_", "-")
            print(f"error: --{option}: {mistake['msg']}, got {mistake['input']!r}", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{root}: {simulation.subjects} subjects. Next: python -m glfa_jax.data.prepare")
    return 0


if __name__ == "__main__":
    sys.exit(main())
