"""YAML as configurations need it: no key given twice, no code, and no more work than text."""

import re
from collections.abc import Hashable
from typing import Any

import yaml

from glfa_jax.errors import InputError
from glfa_jax.files import one_line, reason

# Far more than any configuration has. Aliases count as often as they are used: a few lines of
# them may stand for more values than memory holds.
LONGEST_TEXT, LONGEST_VALUE = 2**19, 2000  # characters
DEEPEST = 50  # sections in sections
MOST_VALUES = 50_000
_NO_CHARACTER = re.compile("[\0\ud800-\udfff]")  # no file or folder can be called so


class _Loader(yaml.SafeLoader):
    """SafeLoader that rejects a key given twice and what has no end, and reads 1e-4 as a number."""

    def __init__(self, text: str):
        super().__init__(text)
        self._depth = self._count = 0
        self._sizes: dict[yaml.Node, int] = {}  # of what aliases may stand for

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        alias, before = self.check_event(yaml.AliasEvent), self._count
        line = self.peek_event().start_mark.line + 1
        if self._depth == DEEPEST:
            raise InputError(f"line {line} is nested in more than {DEEPEST} sections")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is None:
            return None
        if not alias:
            self._count += 1
            self._sizes[node] = self._count - before
        elif node in self._sizes:
            self._count += self._sizes[node]
        else:
            raise InputError(f"line {line} names what it is itself a part of")
        if isinstance(node, yaml.ScalarNode):
            if len(node.value) > LONGEST_VALUE:
                raise InputError(f"line {line} holds a value of {len(node.value):,} characters")
            if found := _NO_CHARACTER.search(node.value):
                raise InputError(f"line {line} holds {found[0]!a}, which is no character")
        if self._count > MOST_VALUES:
            raise InputError(f"holds more than {MOST_VALUES:,} values, aliases counted in full")
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes what `_Loader` would read as something else than a string."""


_EXPONENT = re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$")
for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict:
    seen = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, Hashable):  # construct_mapping rejects others
            if key in seen:
                line = key_node.start_mark.line + 1
                raise InputError(f"key {key!r:.100} is given twice, the second time in line {line}")
            seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def parse(text: str) -> Any:
    """Raises InputError, a part of a sentence, for what is no YAML or more than it may be."""
    if len(text) > LONGEST_TEXT:
        raise InputError(f"{len(text):,} characters, far more than a configuration has")
    try:
        return _apart(yaml.load(text, _Loader))
    except InputError:
        raise
    except yaml.MarkedYAMLError as error:
        said = one_line(f"{error.context or ''} {error.problem or ''}")
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InputError(f"not valid YAML ({said}{where})") from None
    except Exception as error:  # dates that do not exist, values that their tags do not fit
        raise InputError(f"not valid YAML ({reason(error)})") from None


def _apart(value: Any) -> Any:
    """A copy in which what an alias named is a value of its own, so that it can be changed."""
    if isinstance(value, dict):
        return {key: _apart(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_apart(entry) for entry in value]
    return value


def dump(tree: Any) -> str:
    """Text that `parse` reads back to the same values."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False)
