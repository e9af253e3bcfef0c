"""Several alignments, one after the other."""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import flax.linen as nn

from glfa_jax.alignments.protocol import Alignment, Needs, aligned_in_parts
from glfa_jax.alignments.registry import get, register
from glfa_jax.errors import InputError

_PLACE = "alignment.options: methods"


@register("composed")
@dataclass(frozen=True)
class Composed(Alignment):
    """y = f_n(... f_1(x)), each fitted to what those before it give, all to the same targets.

    methods: names, divided by commas, each followed by its options where they are not the default,
    such as `warp grid=8, ridge part=both kernel_size=7`. It needs what the most demanding of them
    does: where there are no pairs, a composition of which a part needs them is rejected. The last
    ones may be such as stage 2 trains (`warp, glfa`); the others are then fitted beforehand.
    """

    methods: str = "warp, ridge"

    needs = "paired"  # of an instance, what its own methods need and do

    def __post_init__(self):
        order = get_args(Needs)  # the least first
        strongest = max((part.needs for part in self.parts), key=order.index)
        object.__setattr__(self, "needs", strongest)
        trained = [part.trainable for part in self.parts]
        object.__setattr__(self, "trainable", any(trained))
        if trained != sorted(trained):
            raise InputError(
                f"{_PLACE}: {self.methods}, but what stage 2 trains (glfa) must come last"
            )

    @cached_property
    def parts(self) -> tuple[Alignment, ...]:
        """The methods with their options; raises InputError for what is none."""
        return tuple(map(_method, self.methods.split(",")))

    @property
    def beforehand(self):
        fixed = sum(not part.trainable for part in self.parts)  # the first ones
        first = Composed(",".join(self.methods.split(",")[:fixed] or ["identity"]))
        return None if first.needs == "nothing" else first

    def layer(self, maps_shape, *, box=None):
        return nn.Sequential(tuple(part.layer(maps_shape, box=box) for part in self.parts))

    def solve(self, maps, *, targets, group, settings, seed):
        params = {}
        for i, part in enumerate(self.parts):
            own = part.solve(
                maps,
                targets=targets,
                group=group._replace(start=None),  # it is of the layers together
                settings=settings,
                seed=seed,
            )
            layer = part.layer(group.mask.shape)
            maps = aligned_in_parts(layer, own, maps)
            if own:
                params[f"layers_{i}"] = own
        return params

    def shift(self, params, *, maps_shape):
        """Of those parts that fetch from one place, one after the other; the rest leave it."""
        found = [
            part.shift(params.get(f"layers_{i}", {}), maps_shape=maps_shape)
            for i, part in enumerate(self.parts)
        ]
        known = [one for one in found if one is not None]
        return sum(known[1:], known[0]) if known else None


def _method(said: str) -> Alignment:
    name, *options = said.split() or [""]
    if name == Composed.name:
        raise InputError(f"{_PLACE}: holds composed itself, must hold other methods")
    kind, given = get(name), {}
    if kind.needs == "anatomy":
        raise InputError(f"{_PLACE}: holds {name}, which knows no maps of fMRI and stands alone")
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise InputError(
                f"{_PLACE}: {option!r} after {name}, must be an option such as grid=8; "
                "methods are divided by commas"
            )
        given[key] = _value(value)
    return kind.from_options(given, place=f"{_PLACE}: {name}")


def _value(text: str) -> Any:
    """A number, true or false; else the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
