"""Options whose defaults the configured generator decides."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any


def decided_by(generator: str) -> Mapping[str, Any]:
    """`section.key` to its default with a generator of this name; nothing of one that is unknown,
    which is rejected where it is opened."""
    # By name: that room stands above this one, and takes seconds to import.
    known = import_module("glfa_jax.generators").GENERATORS
    return known[generator].defaults if generator in known else {}


def left_out(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By section, the options that are not given, and their defaults."""
    found: dict[str, dict[str, Any]] = {}
    for key, default in defaults.items():
        section, option = key.split(".")
        own = given.get(section, {})
        if isinstance(own, dict) and option not in own:  # what is no section is rejected as it is
            found.setdefault(section, {})[option] = default
    return found
