"""How alike generated and true videos are: each metric registers itself in a file of this folder.

    METRICS.register(
        Metric("edges", group="pixel", variant="Sobel", better="higher", measure=edge_similarity)
    )

is all that a metric of pixels takes to be in `scores.json`, `metrics.json`, sweeps, comparisons and
reports where `evaluation.metrics` names it or its group. One that needs what a pretrained model
predicts names it in `needs`; the model is loaded by a file in `glfa_jax/evaluation/models`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any, Literal

import numpy as np

from glfa_jax.errors import InputError
from glfa_jax.metrics.mismatch import with_some
from glfa_jax.registry import Registry

PIXELS = "pixels"


@dataclass(frozen=True)
class Quantity:
    """What metrics compare of videos in place of pixels, computed once for all of them.

    of: videos, uint8 (clips, frames, height, width, 3), to an array (clips, ...); called with one
        clip at a time.
    """

    name: str
    of: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Metric:
    """A value for each clip, or with `per_run` one for a whole run, and what belongs to it.

    group: of `evaluation.metrics`, where the metric can also be named alone; None: always measured.
    variant: how exactly it is measured. Values of two variants are not compared.
    better: the direction. unit: such as "dB"; empty where there is none.
    measure: `(generated, *, truth)`, both (clips, ...), to values (clips,), or to one number.
    needs: what `measure` takes: "pixels" (videos, uint8 (clips, frames, height, width, 3)), a
        Quantity, or what an evaluation model gives.
    truth_needs: what `measure` takes of the truth, where that is of captions and not of frames.
    of_truth: what it takes of the truth instead, computed once, such as the right classes.
    same_shape: left out where generated and true clips differ in size or number of frames.
    chance: what guessing reaches, or `(generated)` to that; None where it is not known.
    mismatched: `(measure, generated, truth, seed)` to values (clips,) against the truth of other
        clips, which stand for chance; None for what is compared with no truth.
    drawn: `(generated, *, truth, trials, seed)` to values (clips,): the same by drawing, as
        published.
    options: keys of `evaluation`, which `measure`, `drawn` and `chance` take as keywords, and which
        name and variant hold in braces; of one with several values there is one metric for each.
    per_run: of all clips of a run, true ones counted once; variant may hold {clips}, {values} of
        each, {shown} for their frames, and {few} for a warning where clips are no more than values.
    """

    name: str
    group: str | None
    variant: str
    better: Literal["higher", "lower"]
    measure: Callable[..., Any]
    needs: str = PIXELS
    unit: str = ""
    truth_needs: str | None = None
    of_truth: Callable[[np.ndarray], np.ndarray] | None = None
    same_shape: bool = True
    chance: float | Callable[..., float] | None = None
    mismatched: Callable[..., np.ndarray] | None = with_some
    drawn: Callable[..., np.ndarray] | None = None
    options: tuple[str, ...] = ()
    per_run: bool = False

    def with_options(self, given: Mapping[str, Any]) -> Iterator["Metric"]:
        """The metric for each value of its options; raises InputError for one that is not given."""
        if not self.options:
            yield self
            return
        if unknown := [name for name in self.options if name not in given]:
            raise InputError(
                f"metric {self.name!r}: options {', '.join(unknown)} must be of evaluation, which "
                f"has {', '.join(given)}"
            )
        values = [given[name] for name in self.options]
        for one in product(*(v if isinstance(v, tuple) else (v,) for v in values)):
            own = dict(zip(self.options, one, strict=True))
            changes: dict[str, Any] = {
                name: partial(function, **own)
                for name in ("measure", "drawn", "chance")
                if callable(function := getattr(self, name))
            }
            name, variant = self.name.format(**own), self.variant.format(**own)
            yield replace(self, name=name, variant=variant, options=(), **changes)


METRICS: Registry[Metric] = Registry(__name__, what="metric")
QUANTITIES: Registry[Quantity] = Registry(__name__, what="quantity")


def chosen(asked: Sequence[str], *, options: Mapping[str, Any]) -> tuple[Metric, ...]:
    """The metrics that are always measured, then those asked for, in the order asked.

    asked: names of groups and of single metrics. options: those of `evaluation`, by name.
    Raises InputError for a name that there is not.
    """
    every = [one for metric in METRICS.values() for one in metric.with_options(options)]
    found = {one.name: one for one in every if one.group is None}
    for name in asked:
        own = [one for one in every if name in (one.group, one.name)]
        if not own:
            groups = dict.fromkeys(one.group for one in every if one.group is not None)
            raise InputError(
                f"evaluation.metrics: {name!r} is neither a group of metrics "
                f"({', '.join(sorted(groups))}) nor a metric "
                f"({', '.join(sorted(one.name for one in every))})"
            )
        found |= {one.name: one for one in own}
    return tuple(found.values())
