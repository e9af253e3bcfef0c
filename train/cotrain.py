"""`python -m train.cotrain --config FILE`: stage 2, and all stages before it that are missing."""

import sys

from glfa_jax.stages.cotrain import command

if __name__ == "__main__":
    sys.exit(command())
