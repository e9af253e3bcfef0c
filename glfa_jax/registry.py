"""Things of one kind by their names; each registers itself in the file that it is written in."""

import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Generic, Protocol, TypeVar

from glfa_jax.errors import InputError


class Named(Protocol):
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Named)
C = TypeVar("C", bound=type)


class Registry(Mapping[str, T], Generic[T]):
    """What is registered, by name: that of the package's modules in the alphabetical order of
    these, whichever was imported first, then that of others; of a module in its own order.

    package: its modules are imported when the registry is first read and not before, so a file is
        known by lying in the folder, and importing one of them takes no longer. One that cannot be
        imported raises ImportError, which names the file.
    what: one of them in a word, for messages. error: what an unknown name raises.
    lacks: `(thing)` to a phrase that says why it cannot be registered, or to an empty one.
    """

    def __init__(
        self,
        package: str,
        *,
        what: str,
        error: type[InputError] = InputError,
        lacks: Callable[[T], str] = lambda thing: "",
    ):
        self._package, self._what, self._error, self._lacks = package, what, error, lacks
        self._known: dict[str, T] = {}
        self._places: dict[str, tuple[bool, str]] = {}
        self._complete = False

    def register(self, thing: T) -> T:
        """Makes it known and returns it; raises ValueError where its name is taken."""
        self._add(thing.name, thing, module=sys._getframe(1).f_globals["__name__"])
        return thing

    def register_as(self, name: str) -> Callable[[C], C]:
        """Class decorator: the same for a class, which gets the name."""

        def add(kind: C) -> C:
            given: Any = kind
            self._add(name, given, module=kind.__module__)
            given.name = name
            return kind

        return add

    def _add(self, name: str, thing: T, *, module: str) -> None:
        if name in self._known:
            raise ValueError(f"{self._what} {name!r}: is registered already")
        if lacks := self._lacks(thing):
            raise ValueError(f"{self._what} {name!r}: {lacks}")
        own = module.startswith(f"{self._package}.")
        self._known[name], self._places[name] = thing, (not own, module if own else "")

    @contextmanager
    def temporarily(self, thing: T) -> Iterator[T]:
        """Known while the block lasts, in place of another of its name: for tests and trials.

        What is registered within the block is gone after it as well.
        """
        before = dict(self._all())
        self._known[thing.name] = thing
        try:
            yield thing
        finally:
            self._known = before

    def named(self, name: str, *, key: str) -> T:
        """What a user names by the option `key`; raises an InputError that says what there is."""
        if name not in self:
            known = ", ".join(sorted(self))
            raise self._error(f"{key}: {name!r} is no {self._what}, must be one of {known}")
        return self[name]

    def _all(self) -> dict[str, T]:
        if not self._complete:
            for module in pkgutil.iter_modules(import_module(self._package).__path__):
                self._import(f"{self._package}.{module.name}")
            self._known = dict(sorted(self._known.items(), key=lambda item: self._places[item[0]]))
            self._complete = True
        return self._known

    def _import(self, module: str) -> None:
        try:
            import_module(module)
        except Exception as error:
            spec = find_spec(module)
            raise ImportError(
                f"{spec.origin if spec else module}: cannot be imported, and every file of its "
                f"folder must be, to know each {self._what} ({type(error).__name__}: {error})"
            ) from error

    def __getitem__(self, name: str) -> T:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())
