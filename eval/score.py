"""`python -m eval.score --config FILE`: scores the decoded clips and writes the report."""

import sys

from glfa_jax.evaluation.score import command

if __name__ == "__main__":
    sys.exit(command())
