"""Controls of a study: warps that should bring nothing, so that what a warp brings is its own."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from glfa_jax.alignments.registry import register
from glfa_jax.alignments.warp import Warp


@register("random-warp")
@dataclass(frozen=True)
class RandomWarp(Warp):
    """As large as the displacement that `warp` finds, and as smooth, but of random direction.

    The nodes that are found change places: of hemisphere, of direction and along the grid.
    """

    def nodes(self, volumes, *, targets, group, seed):
        found = super().nodes(volumes, targets=targets, group=group, seed=seed)
        rng = np.random.default_rng(seed)
        fields = np.asarray(found).reshape(4, self.grid, self.grid)[rng.permutation(4)]
        signs = rng.choice([-1.0, 1.0], (4, 1, 1))
        turned = np.stack([np.rot90(field, int(rng.integers(4))) for field in fields]) * signs
        return jnp.asarray(turned.reshape(found.shape), found.dtype)


@register("shuffled-warp")
@dataclass(frozen=True)
class ShuffledWarp(Warp):
    """`warp` to pairs in disorder: the target of every clip is another clip's."""

    needs = "paired"

    def nodes(self, volumes, *, targets, group, seed):
        assert targets is not None  # `fit` asked for them
        ring = np.random.default_rng(seed).permutation(len(targets))
        mixed = np.empty_like(targets)
        mixed[ring] = targets[np.roll(ring, 1)]
        return super().nodes(volumes, targets=mixed, group=group, seed=seed)
