"""Whether what a configuration says can be the value of a module's field."""

from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, get_args, get_origin

# Far beyond every model there is: larger numbers are mistakes, and some would take all memory or
# all time before a tensor is looked at.
_LARGEST = 10**6
_LARGEST_TABLE = 2**27
_MOST_ENTRIES = 8
_MORE_ENTRIES = {"latents_mean": 1024, "latents_std": 1024}
_SIGNED = {"latents_mean"}
_MOST = {
    **dict.fromkeys(("depth", "decoder_depth"), 128),
    **dict.fromkeys(("num_hidden_layers", "num_layers"), 64),
    "layers_per_block": 8,
    "num_res_blocks": 8,
    "kernel_size": 255,
    "subjects": 256,
}
_ZERO_TOO = {"eos_token_id", "pad_token_id", "downsample_padding", "subjects"}


def misfits(values: Mapping[str, Any], *, module: type) -> list[str]:
    """A phrase for each value that does not suit the module's field of its name."""
    kinds = {name: field.type for name, field in module.__dataclass_fields__.items()}
    return [
        f"{key} is {value!r:.60}, must be {_wanted(key, kinds[key])}"
        for key, value in values.items()
        if not _suits(key, value, kinds[key])
    ]


def _bounds(key: str) -> tuple[int, int]:
    return int(key not in _ZERO_TOO), _MOST.get(key, _LARGEST)


def _suits(key: str, value: Any, kind: Any) -> bool:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return any(_suits(key, value, option) for option in inner)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin is tuple:
        most = _MORE_ENTRIES.get(key, _MOST_ENTRIES)
        several = isinstance(value, list | tuple) and 0 < len(value) <= most
        return several and all(_suits(key, entry, inner[0]) for entry in value)
    if kind is int:
        low, high = _bounds(key)
        return type(value) is int and low <= value <= high
    if kind is float:
        low = -_LARGEST if key in _SIGNED else 0
        return type(value) in (int, float) and low <= value <= _LARGEST  # false for NaN too
    return type(value) is kind


def _wanted(key: str, kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return _wanted(key, inner[0])
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin is tuple:
        most = _MORE_ENTRIES.get(key, _MOST_ENTRIES)
        each = "whole numbers from {} to {:,}".format(*_bounds(key))
        each = {str: "text", bool: "true or false", float: "numbers"}.get(inner[0], each)
        return f"a list of 1 to {most:,} entries, {each}"
    if kind is int:
        return "one integer from {} to {:,}".format(*_bounds(key))
    if kind is float:
        return f"a number from 0 to {_LARGEST:,}"
    return "true or false" if kind is bool else "text"


def require_table_size(positions: int, width: int) -> None:
    """Before a table of positions is computed, which takes memory even where only shapes are asked.

    Raises ValueError for sizes that no model has.
    """
    if positions * width > _LARGEST_TABLE:
        raise ValueError(
            f"{positions:,} positions of width {width:,}: a table of them may hold at most "
            f"{_LARGEST_TABLE:,} numbers"
        )
