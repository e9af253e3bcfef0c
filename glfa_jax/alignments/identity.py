"""No alignment: every subject's maps are taken as they are (fMRI-PTE-V, SPEC §6.3)."""

from dataclasses import dataclass

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float

from glfa_jax.alignments.protocol import Alignment
from glfa_jax.alignments.registry import register


class _Same(nn.Module):
    def __call__(self, x: Float[Array, "*b h w"]) -> Float[Array, "*b h w"]:
        return x


@register("identity")
@dataclass(frozen=True)
class Identity(Alignment):
    """y = x; nothing is fitted, so that an unseen subject can be decoded at once."""

    needs = "nothing"

    def layer(self, maps_shape, *, box=None):
        return _Same()

    def shift(self, params, *, maps_shape):
        return np.zeros((*maps_shape, 2))

    def solve(self, maps, *, targets, group, settings, seed):
        return {}
