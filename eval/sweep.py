"""`python -m eval.sweep --config FILE`: samples and scores under many settings."""

import sys

from glfa_jax.evaluation.sweep import command

if __name__ == "__main__":
    sys.exit(command())
