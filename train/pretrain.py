"""`python -m train.pretrain --config FILE`: fine-tunes the fMRI autoencoder."""

import sys

from glfa_jax.stages.pretrain import command

if __name__ == "__main__":
    sys.exit(command())
