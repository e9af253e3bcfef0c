"""`python -m eval.compare RUN RUN ...`: compares scored runs."""

import sys

from glfa_jax.evaluation.compare import command

if __name__ == "__main__":
    sys.exit(command())
