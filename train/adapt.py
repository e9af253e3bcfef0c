"""`python -m train.adapt --config FILE`: fits the alignment to a new subject."""

import sys

from glfa_jax.stages.adapt import command

if __name__ == "__main__":
    sys.exit(command())
