"""Alignments by name. A file in this folder that registers one is all that a new one takes."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from glfa_jax.alignments.protocol import Alignment
from glfa_jax.config import Config
from glfa_jax.errors import InputError

_METHODS: dict[str, type[Alignment]] = {}
Method = TypeVar("Method", bound=type[Alignment])


def register(name: str) -> Callable[[Method], Method]:
    """Makes a class known under the name that `alignment.method` takes."""

    def known(method: Method) -> Method:
        if _METHODS.setdefault(name, method) is not method:
            raise ValueError(f"{name}: there is an alignment of that name already")
        method.name = name
        return method

    return known


def names() -> list[str]:
    """All that `alignment.method` may be."""
    _import_all()
    return sorted(_METHODS)


def get(name: str) -> type[Alignment]:
    """The class of that name; raises InputError for a name that there is not."""
    if name not in names():
        raise InputError(f"alignment.method: {name}, must be one of {', '.join(names())}")
    return _METHODS[name]


def configured(settings: Config) -> Alignment:
    """The method of a configuration, with its options; raises InputError where they do not fit."""
    own = settings.alignment
    if not settings.aligned:
        return get("identity")()
    method = get(own.method)
    if method.needs != "nothing" and not method.trainable and not own.per_subject:
        raise InputError(
            f"alignment.per_subject: must be true with alignment.method {own.method}, which is "
            "fitted to every subject"
        )
    return method.from_settings(settings)


def described(config: Mapping[str, Any], *, place: str) -> Alignment:
    """The method of a layer on disk, by its config.json (`Alignment.describe`)."""
    options = config.get("options", {})
    if not isinstance(options, dict):
        raise InputError(f"{place}: options must be an object")
    return get(str(config.get("method"))).from_options(options, place=place)


@cache
def _import_all() -> None:
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f"{__package__}.{module.name}")
