"""JSON to dataclasses and typed dictionaries, by their annotations: what does not fit is named."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from glfa_jax.errors import InputError
from glfa_jax.files import read_object

Text = Annotated[str, "of any form"]  # a plain str is one printable line

T = TypeVar("T")


def read(kind: type[T], path: Path, *, error: type[InputError] = InputError, **given: Any) -> T:
    """A file's object as a `kind`; given: fields that are not in the file."""
    content = read_object(path, error=error)
    try:
        return decode(kind, content, given=given)
    except (InputError, OverflowError) as caught:
        raise error(f"{path}: {caught}") from None


def decode(kind: Any, value: Any, where: str = "", *, given: Mapping[str, Any] = {}) -> Any:
    """`value` as the annotation `kind` wants it; `where` is its place in the file."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if is_dataclass(kind) or is_typeddict(kind):
        _expect(isinstance(value, dict), where, "an object", value)
        return _object(kind, value, where, given)
    if origin in (Mapping, dict):
        _expect(isinstance(value, dict), where, "an object", value)
        names = {decode(arguments[0], name, where): content for name, content in value.items()}
        return {name: decode(arguments[1], v, _below(where, name)) for name, v in names.items()}
    if origin in (tuple, list, Sequence):
        _expect(isinstance(value, list), where, "a list", value)
        found = [decode(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value)]
        return found if origin is list else tuple(found)
    if origin is UnionType:  # a value or null
        return None if value is None else decode(arguments[0], value, where)
    if origin is Literal:
        _expect(value in arguments, where, f"one of {', '.join(arguments)}", value)
    elif kind is Text:
        _expect(isinstance(value, str), where, "text", value)
    elif kind is str:
        _expect(isinstance(value, str) and value.isprintable(), where, "one line of text", value)
    elif kind is int:
        _expect(type(value) is int, where, "a whole number", value)
    else:
        _expect(type(value) in (int, float) and math.isfinite(value), where, "finite", value)
        return float(value)
    return value


def _object(kind: Any, value: dict[str, Any], where: str, given: Mapping[str, Any]) -> Any:
    kinds = {name: k for name, k in _annotations(kind).items() if name not in given}
    needed = kind.__required_keys__ if is_typeddict(kind) else _without_default(kind)
    if missing := [name for name in kinds if name in needed and name not in value]:
        raise InputError(f"{_below(where, missing[0])}: missing")
    if unknown := [name for name in value if name not in kinds]:
        known = ", ".join(kinds)
        raise InputError(f"{_below(where, unknown[0])}: unknown key, known here are {known}")
    found = {name: decode(kinds[name], v, _below(where, name)) for name, v in value.items()}
    return kind(**found, **given)


@cache
def _without_default(kind: Any) -> frozenset[str]:
    """Fields that a dataclass must be given; what is younger than files of its format is not."""
    return frozenset(
        one.name
        for one in fields(kind)
        if one.default is MISSING and one.default_factory is MISSING
    )


@cache
def _annotations(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _below(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _expect(fits: bool, where: str, wanted: str, value: Any) -> None:
    if not fits:
        shown = json.dumps(value)
        shown = shown if len(shown) <= 40 else f"{shown[:40]}..."
        raise InputError(f"{where}: must be {wanted}, got {shown}")
