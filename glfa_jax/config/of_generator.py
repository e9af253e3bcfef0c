"""Options whose defaults the configured generator decides."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

Tree = dict[str, Any]


def decided_by(generator: str) -> Mapping[str, Any]:
    """`section.key` to its default with a generator of this name; nothing of one that is unknown,
    which is rejected where it is opened."""
    # By name: that room stands above this one, and takes seconds to import.
    known = import_module("glfa_jax.generators").GENERATORS
    return known[generator].defaults if generator in known else {}


def filled(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> Tree:
    """Options as given, and the defaults of those that are left out."""
    tree = dict(given)
    for key, default in defaults.items():
        section, option = key.split(".")
        own = tree.get(section, {})
        if isinstance(own, dict):  # else rejected as it is
            tree[section] = {option: default, **own}
    return tree


def without(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> Tree:
    """The inverse: options but for those that are as the defaults."""
    tree = dict(given)
    for key, default in defaults.items():
        section, option = key.split(".")
        own = tree.get(section)
        if isinstance(own, dict) and own.get(option) == default:
            tree[section] = {name: value for name, value in own.items() if name != option}
    return tree
