"""`python -m train.contrast --config FILE`: stage 1, fMRI against CLIP."""

import sys

from glfa_jax.stages.contrast import command

if __name__ == "__main__":
    sys.exit(command())
