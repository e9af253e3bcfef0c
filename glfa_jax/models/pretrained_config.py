"""Reading a transformers `config.json` into the fields of a module."""

from collections.abc import Mapping
from typing import Any


def fields(
    config: Mapping[str, Any],
    *,
    model: str,
    defaults: Mapping[str, Any],
    allowed: Mapping[str, tuple],
) -> dict[str, Any]:
    """The values of the keys of `defaults`, which are what transformers takes for absent keys.

    Raises ValueError naming every key whose value is not among those `allowed`, or whose type is
    not that of its default.
    """
    problems = []
    for key, values in allowed.items():
        if key in config and config[key] not in values:
            choices = " or ".join(map(repr, values))
            problems.append(f"{key} is {config[key]!r}, supported is {choices}")
    picked = {}
    for key, default in defaults.items():
        value = config.get(key, default)
        if isinstance(value, list | tuple) and len(value) == 2 and value[0] == value[1]:
            value = value[0]  # a square given as (height, width)
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not type(default):
            problems.append(f"{key} is {value!r}, supported is one {type(default).__name__}")
        picked[key] = value
    if problems:
        raise ValueError(f"{model} configuration: " + "; ".join(problems))
    if picked["hidden_size"] % picked["num_attention_heads"]:
        raise ValueError(
            f"{model} configuration: hidden_size {picked['hidden_size']} is no multiple of "
            f"num_attention_heads {picked['num_attention_heads']}"
        )
    return picked


def num_labels(config: Mapping[str, Any]) -> int:
    """How many classes a classifier has: `id2label` tells it, else `num_labels`, else two."""
    if config.get("id2label") is not None:
        return len(config["id2label"])
    return int(config.get("num_labels", 2))
