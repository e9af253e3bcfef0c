"""Fits the training subjects' layers of a method that stage 2 does not train."""

import numpy as np
from jaxtyping import Bool, Float

from glfa_jax.alignments.encoder import OF_SUBJECT
from glfa_jax.alignments.protocol import Alignment, Group
from glfa_jax.config import Adapt


def fit_training_subjects(
    method: Alignment,
    maps: Float[np.ndarray, "s n w height width"],
    *,
    mask: Bool[np.ndarray, "height width"],
    settings: Adapt,
    seed: int,
) -> dict[str, dict]:
    """A layer of each, fitted to the mean of all subjects' maps of the same clips.

    maps: z-scores of every training subject, windows of the same n clips in the same order; all are
    in memory at once, in 32 bits. Returns the layers as they are named in the encoder.
    """
    everybody = maps.astype(np.float32)
    group, mean = Group(everybody, mask), everybody.mean(0)
    return {
        OF_SUBJECT.format(i): method.fit(
            own, targets=mean, group=group, settings=settings, seed=seed + i
        ).params
        for i, own in enumerate(everybody)
    }
