"""`python -m train.latents --config FILE`: keeps the VAE's latents of the training clips."""

import sys

from glfa_jax.stages.latents import command

if __name__ == "__main__":
    sys.exit(command())
