"""Things of one kind by their names; each registers itself in the file that it is written in."""

import pkgutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Generic, Protocol, TypeVar

from glfa_jax.errors import InputError


class Named(Protocol):
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Named)
C = TypeVar("C", bound=type)


class Registry(Mapping[str, T], Generic[T]):
    """What is registered, by name, in the order of registration.

    package: its modules are imported when the registry is first read and not before, so a file is
        known by lying in the folder, and importing one of them takes no longer.
    what: one of them in a word, for messages. error: what an unknown name raises.
    """

    def __init__(self, package: str, *, what: str, error: type[InputError] = InputError):
        self._package, self._what, self._error = package, what, error
        self._known: dict[str, T] = {}
        self._complete = False

    def register(self, thing: T) -> T:
        """Makes it known and returns it; raises ValueError where its name is taken."""
        self._add(thing.name, thing)
        return thing

    def register_as(self, name: str) -> Callable[[C], C]:
        """Class decorator: the same for a class, which gets the name."""

        def add(kind: C) -> C:
            given: Any = kind
            self._add(name, given)
            given.name = name
            return kind

        return add

    def _add(self, name: str, thing: T) -> None:
        if name in self._known:
            raise ValueError(f"{self._what} {name!r}: is registered already")
        self._known[name] = thing

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
                import_module(f"{self._package}.{module.name}")
            self._complete = True
        return self._known

    def __getitem__(self, name: str) -> T:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())
