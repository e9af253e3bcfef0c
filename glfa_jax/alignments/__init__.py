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
    Layer,
    align,
    configured_encoder,
    encoder_fields,
    layers_of,
    load_encoder,
    load_layer,
    method_of,
    save_encoder,
    shares_all_but_layer,
    with_layer,
    without_alignment,
)
from glfa_jax.alignments.protocol import SHARED, Alignment, Fitted, Group
from glfa_jax.alignments.registry import (
    ALIGNMENTS,
    configured,
    data_for_strangers,
    for_strangers,
    get,
    minutes_for_strangers,
    register,
)

__all__ = [
    "ALIGNMENTS",
    "SHARED",
    "Alignment",
    "Fitted",
    "Group",
    "Layer",
    "align",
    "configured",
    "configured_encoder",
    "data_for_strangers",
    "encoder_fields",
    "for_strangers",
    "get",
    "layers_of",
    "load_encoder",
    "load_layer",
    "method_of",
    "minutes_for_strangers",
    "register",
    "save_encoder",
    "shares_all_but_layer",
    "with_layer",
    "without_alignment",
]
