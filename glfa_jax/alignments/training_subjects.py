"""Fits the training subjects' layers of a method that stage 2 does not train."""

import numpy as np
from jaxtyping import Bool, Float

from glfa_jax.alignments.protocol import Alignment, Group, aligned_in_parts
from glfa_jax.config import Adapt

ROUNDS = 2  # the mean of maps that are not aligned yet is blurred, so they are aligned to it twice


def fit_training_subjects(
    method: Alignment,
    maps: Float[np.ndarray, "s n w height width"],
    *,
    mask: Bool[np.ndarray, "height width"],
    paired: bool,
    settings: Adapt,
    seed: int,
) -> list[dict]:
    """Parameters of a layer of each, fitted to the mean of all subjects' maps of the same clips.

    maps: z-scores of every training subject, windows of n clips each; all are in memory at once, in
        32 bits. paired: whether the clips are the same, in the same order.
    """
    layer, aligned, found = method.layer(mask.shape), maps, []
    for number in range(ROUNDS):
        if number:
            aligned = np.stack(
                [aligned_in_parts(layer, *pair) for pair in zip(found, maps, strict=True)]
            )
        mean = aligned.mean(0) if paired else None
        found = [
            method.fit(
                own,
                targets=mean,
                group=Group(aligned, mask),
                settings=settings,
                seed=seed + i,
            ).params
            for i, own in enumerate(maps)
        ]
    return found
