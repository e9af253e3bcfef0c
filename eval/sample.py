"""`python -m eval.sample --config FILE`: decodes the test clips into video."""

import sys

from glfa_jax.evaluation.sample import command

if __name__ == "__main__":
    sys.exit(command())
