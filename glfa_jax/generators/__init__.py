"""Video generators conditioned on tokens: one protocol, one registry, one folder a generator.

A generator is a class that fulfils `Generator` and registers itself under the name by which a
configuration asks for it (`generator: unet3d`):

    @register("mine")
    @dataclass(frozen=True)
    class MyGenerator: ...

A folder of this package is found by itself; a class of another package is known once the module
that holds it is imported.
"""

import importlib
import pkgutil
from collections.abc import Callable
from typing import TypeVar

from glfa_jax.errors import InputError
from glfa_jax.generators.protocol import Generator, Trainable

__all__ = ["Generator", "Trainable", "named", "names", "register"]

_G = TypeVar("_G", bound=type[Generator])
_REGISTRY: dict[str, type[Generator]] = {}


def register(name: str) -> Callable[[_G], _G]:
    """Class decorator: makes a generator known by `name`. Raises ValueError for a second one."""

    def add(generator: _G) -> _G:
        if name in _REGISTRY:
            raise ValueError(f"generator {name}: is registered already")
        _REGISTRY[name] = generator
        return generator

    return add


def names() -> tuple[str, ...]:
    """Of all generators that are known, in alphabetical order."""
    for found in pkgutil.iter_modules(__path__):
        if found.ispkg:
            importlib.import_module(f"{__name__}.{found.name}")
    return tuple(sorted(_REGISTRY))


def named(name: str) -> type[Generator]:
    """The generator that a configuration asks for. Raises InputError naming those there are."""
    if name not in (known := names()):
        raise InputError(f"generator: {name!r:.60} is unknown, must be one of {', '.join(known)}")
    return _REGISTRY[name]
