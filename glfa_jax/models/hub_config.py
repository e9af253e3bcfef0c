"""From a diffusers `config.json` to the fields of a module, rejecting what is not supported."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import flax.linen as nn

from glfa_jax.models.config_values import misfits


def fields_from_config(
    module: type[nn.Module],
    *,
    config: Mapping[str, Any],
    required: tuple[str, ...],
    fixed: Mapping[str, tuple[Any, ...]],
    unused: tuple[str, ...],
) -> dict[str, Any]:
    """The keyword arguments of `module` that `config` holds.

    Options beside the module's fields must be among `unused` (no influence on the result), or
    `fixed` with one of the values given there; anything else raises ValueError naming it.
    """
    known = {field.name for field in fields(module)} - {
        *("parent", "name", "dtype", "remat", "dropout")
    }
    problems = [f"{key} is missing" for key in required if key not in config]
    values: dict[str, Any] = {}
    for key, value in config.items():
        value = tuple(value) if isinstance(value, list) else value
        if key.startswith("_") or key in unused:
            continue
        if key in fixed and value not in fixed[key]:
            allowed = " or ".join(map(repr, fixed[key]))
            problems.append(f"{key} is {value!r:.60}, supported is {allowed}")
        elif key in known:
            values[key] = value
        elif key not in fixed:
            problems.append(f"{key:.60} is no option of {module.__name__}")
    problems += misfits(values, module=module)
    if problems:
        raise ValueError(f"config of {module.__name__}: {'; '.join(problems)}")
    return values
