"""Alignments: methods that bring every subject's flat maps into a common space.

A method is one file here, found by its name in the configuration (`alignment.method`). It says
what layer maps go through and how that is solved for a new subject's maps:

    @register("gain")
    class Gain(Alignment):
        needs = "paired"
        def layer(self, maps_shape, *, box=None): ...
        def solve(self, maps, *, targets, group, settings, seed): ...
"""

from glfa_jax.alignments.encoder import (
    align,
    configured_encoder,
    encoder_fields,
    layers_of,
    load_encoder,
    method_of,
    save_encoder,
    with_layer,
    without_alignment,
)
from glfa_jax.alignments.protocol import SHARED, Alignment, Fitted, Group
from glfa_jax.alignments.registry import ALIGNMENTS, configured, get, register

__all__ = [
    "ALIGNMENTS",
    "SHARED",
    "Alignment",
    "Fitted",
    "Group",
    "align",
    "configured",
    "configured_encoder",
    "encoder_fields",
    "get",
    "layers_of",
    "load_encoder",
    "method_of",
    "register",
    "save_encoder",
    "with_layer",
    "without_alignment",
]
