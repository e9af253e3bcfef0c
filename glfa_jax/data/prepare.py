"""`python -m glfa_jax.data.prepare --config FILE`: scanner files to the prepared store.

Reads each run and each video once, in several processes. What is finished is kept, so the same
command goes on after an interruption. A study that is configured to be simulated is written first.
"""

import sys
from collections.abc import Sequence

from glfa_jax import config
from glfa_jax.cli import run_main
from glfa_jax.preparation import prepare


def main(settings: config.Config) -> None:
    prepare(settings.data)


def command(arguments: Sequence[str] | None = None) -> int:
    return run_main(main, arguments, command="glfa_jax.data.prepare", description=__doc__)


if __name__ == "__main__":
    sys.exit(command())
