"""Reading a transformers `config.json` into the fields of a module."""

from collections.abc import Mapping
from typing import Any

from glfa_jax.models.config_values import misfits


def fields(
    config: Mapping[str, Any],
    *,
    model: str,
    module: type,
    defaults: Mapping[str, Any],
    allowed: Mapping[str, tuple],
) -> dict[str, Any]:
    """The values of the keys of `defaults`, which are what transformers takes for absent keys.

    Raises ValueError naming every key whose value is not among those `allowed`, or not what the
    `module`'s field of its name can hold.
    """
    problems = []
    for key, values in allowed.items():
        if key in config and config[key] not in values:
            choices = " or ".join(map(repr, values))
            problems.append(f"{key} is {config[key]!r:.60}, supported is {choices}")
    picked = {}
    for key, default in defaults.items():
        value = config.get(key, default)
        one = not isinstance(default, tuple)
        if one and isinstance(value, list | tuple) and len(value) == 2 and value[0] == value[1]:
            value = value[0]  # a square given as (height, width)
        picked[key] = value
    problems += misfits(picked, module=module)
    if problems:
        raise ValueError(f"{model} configuration: " + "; ".join(problems))
    picked |= {key: float(picked[key]) for key in picked if isinstance(defaults[key], float)}
    if "hidden_size" in picked and picked["hidden_size"] % picked["num_attention_heads"]:
        raise ValueError(
            f"{model} configuration: hidden_size {picked['hidden_size']} is no multiple of "
            f"num_attention_heads {picked['num_attention_heads']}"
        )
    return picked


def num_labels(config: Mapping[str, Any], *, model: str, module: type) -> int:
    """How many classes a classifier has: `id2label` tells it, else `num_labels`, else two."""
    count, labels = config.get("num_labels", 2), config.get("id2label")
    problems = []
    if isinstance(labels, Mapping):
        count = len(labels)
    elif labels is not None:
        problems = [f"id2label is {labels!r:.60}, must name every class"]
    problems += misfits({"num_labels": count}, module=module)
    if problems:
        raise ValueError(f"{model} configuration: " + "; ".join(problems))
    return count
