"""`python -m eval.study --config FILE`: trains and compares methods over seeds."""

import sys

from glfa_jax.evaluation.study import command

if __name__ == "__main__":
    sys.exit(command())
