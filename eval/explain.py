"""`python -m eval.explain --config FILE`: which cortex the decoded clips rest on."""

import sys

from glfa_jax.evaluation.explain import command

if __name__ == "__main__":
    sys.exit(command())
