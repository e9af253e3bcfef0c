"""Which parameters train, at what rate, and the optimizer over them."""

import re
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from glfa_jax.config import Descent
from glfa_jax.errors import TrainingError

OTHERWISE = "otherwise"


class Group(NamedTuple):
    """Parameters and their learning-rate multiplier.

    pattern: regular expression searched for in the path, as in "encoder/blocks.0/norm1/scale";
        the word "otherwise" stands for what no other group matches.
    rate: multiplier of the stage's learning rate; None or 0 freezes.
    most: what they are clamped at after every step.
    """

    pattern: str
    rate: float | None
    most: float | None = None


class Split(NamedTuple):
    """Two nested dicts with disjoint paths."""

    trainable: dict[str, Any]
    frozen: dict[str, Any]


def rates(params: dict, *, groups: tuple[Group, ...], unused: bool = False) -> dict:
    """The multiplier of every parameter, 0.0 where frozen, in a tree like `params`.

    Raises TrainingError when a path is matched by no group or by several or, unless `unused`
    allows it, when a group matches nothing.
    """
    named = [group for group in groups if group.pattern != OTHERWISE]
    rest = [group for group in groups if group.pattern == OTHERWISE]
    mistakes = []
    used = set()
    out = {}
    for path in flatten_dict(params):
        name = "/".join(path)
        hits = [group for group in named if re.search(group.pattern, name)] or rest
        used.update(group.pattern for group in hits)
        if len(hits) == 1:
            out[path] = float(hits[0].rate or 0.0)
        else:
            patterns = [group.pattern for group in hits]
            mistakes.append(f"{name} is matched by {patterns or 'no group'}")
    if not unused:
        mistakes += [
            f"pattern {group.pattern!r} matches nothing"
            for group in named
            if group.pattern not in used
        ]
    if mistakes:
        raise TrainingError(
            "every parameter must be in exactly one group, and every group in use: "
            + "; ".join(mistakes)
        )
    return unflatten_dict(out)


def split(params: dict, *, groups: tuple[Group, ...]) -> Split:
    """Parts parameters into those that train and those that do not."""
    rate = flatten_dict(rates(params, groups=groups))
    flat = flatten_dict(params)
    return Split(
        trainable=unflatten_dict({path: x for path, x in flat.items() if rate[path]}),
        frozen=unflatten_dict({path: x for path, x in flat.items() if not rate[path]}),
    )


def merge(trainable: dict, frozen: dict) -> dict:
    """Inverse of `split`; raises TrainingError when a path is in both."""
    ours, theirs = flatten_dict(trainable), flatten_dict(frozen)
    both = ["/".join(path) for path in ours.keys() & theirs.keys()]
    if both:
        raise TrainingError(f"parameters both trainable and frozen: {', '.join(sorted(both))}")
    return unflatten_dict(ours | theirs)


def learning_rate(stage: Descent, count: jax.Array) -> jax.Array:
    """The rate of the update after `count` others: linear warm-up, then constant or cosine."""
    # The first update already has a rate above zero.
    rate = stage.learning_rate * jnp.minimum((count + 1) / max(stage.warmup_steps, 1), 1.0)
    if stage.decay == "cosine":
        rate = rate * 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(count / stage.steps, 1.0)))
    return rate


def optimizer(
    stage: Descent, *, trainable: dict, groups: tuple[Group, ...], moment_dtype: str = "float32"
) -> optax.GradientTransformation:
    """AdamW with PyTorch's numbers: decay decoupled, on every parameter, scaled by its own rate.

    Gradients are clipped first, by their norm over all trainable parameters together. The rate is
    that of `learning_rate`. `trainable` may be abstract. moment_dtype: of the first moments.
    """
    multiplier = rates(trainable, groups=groups, unused=True)
    stuck = ["/".join(path) for path, rate in flatten_dict(multiplier).items() if not rate]
    if stuck:
        raise TrainingError(f"trainable, but their group is frozen: {', '.join(stuck)}")
    limits = [group for group in groups if group.most is not None]
    return optax.chain(
        optax.clip_by_global_norm(stage.clip_norm),
        optax.scale_by_adam(
            b1=stage.betas[0], b2=stage.betas[1], eps=1e-8, mu_dtype=jnp.dtype(moment_dtype)
        ),
        optax.add_decayed_weights(stage.weight_decay),
        optax.scale_by_learning_rate(lambda count: learning_rate(stage, jnp.asarray(count))),
        optax.stateless(
            lambda updates, params: jax.tree.map(lambda u, rate: u * rate, updates, multiplier)
        ),
        # Only where there are any: a state that was saved without has no place for them.
        *(optax.stateless(partial(_clamped, groups=limits)) for _ in limits[:1]),
    )


def _clamped(updates: Any, params: Any, *, groups: list[Group]) -> Any:
    """Updates after which no parameter is above its group's limit."""

    def clamp(path: tuple, update: jax.Array, held: jax.Array) -> jax.Array:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for _, _, most in (group for group in groups if re.search(group.pattern, name)):
            assert most is not None
            update = jnp.minimum(update, most - held)
        return update

    return jax.tree_util.tree_map_with_path(clamp, updates, params)
