"""`python -m glfa_jax SUBCOMMAND`, the same as `glfa-jax SUBCOMMAND`."""

import sys

from glfa_jax.commands import main

if __name__ == "__main__":
    sys.exit(main())
