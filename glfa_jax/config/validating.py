"""Options against the schema; every mistake in one sentence that names its key."""

from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from glfa_jax import strict_yaml
from glfa_jax.config.base import ConfigError, Section
from glfa_jax.errors import InputError
from glfa_jax.files import one_line

MOST_TOLD = 20  # mistakes in one message

Schema = TypeVar("Schema", bound=Section)


def overridden(given: Schema, overrides: list[str] | tuple[str, ...]) -> Schema:
    """The same configuration but for `section.key=value`; raises ConfigError.

    What was left out stays so: with another generator it is as that one has it.
    """
    tree = given.model_dump(mode="json", exclude_unset=True)
    return validated(tree, overrides, schema=type(given), source="configuration")


def validated(
    tree: dict, overrides: list[str] | tuple[str, ...], *, schema: type[Schema], source: str
) -> Schema:
    for override in overrides:
        _override(tree, override)
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        source = " ".join([source, *(f"--set {one_line(override)}" for override in overrides)])
        mistakes = error.errors()
        # A list whose entries are wrong is also called too short.
        outer = {place["loc"][:depth] for place in mistakes for depth in range(len(place["loc"]))}
        inner = [mistake for mistake in mistakes if mistake["loc"] not in outer]
        found = [_sentence(mistake, schema) for mistake in inner[:MOST_TOLD]]
        if len(inner) > MOST_TOLD:
            found.append(f"and {len(inner) - MOST_TOLD} more mistakes")
        raise ConfigError(f"{source}: {'; '.join(found)}") from None


def parse(text: str, source: str) -> Any:
    try:
        return strict_yaml.parse(text)
    except InputError as error:
        raise ConfigError(f"{source}: {error}") from None


def _override(tree: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    *sections, leaf = key.split(".")
    if not separator or not all([*sections, leaf]) or len(sections) > strict_yaml.DEEPEST:
        raise ConfigError(f"--set {override!r:.200}: must read section.key=value")
    for section in sections:
        if tree.get(section) is None:  # absent, or a section left empty
            tree[section] = {}
        tree = tree[section]
        if not isinstance(tree, dict):
            raise ConfigError(f"--set {override!r:.200}: {section} is no section")
    tree[leaf] = parse(value, f"--set {override!r:.200}")


_PATTERNS = {
    r"^[A-Za-z0-9]+$": "letters and digits",
    r"^[A-Za-z0-9._-]+$": "letters, digits, '.', '_' and '-'",
    r"^[^:]+:[0-9]+$": "host:port",
}


def _sentence(error: Any, schema: type[Section]) -> str:
    key = one_line(".".join(map(str, error["loc"])))
    kind, given = error["type"], f"{error['input']!r:.200}"
    if kind == "extra_forbidden":
        known = ", ".join(_section(schema, error["loc"][:-1]).model_fields)
        return f"{key}: unknown key, known here are {known}"
    if kind == "missing":
        return f"{key}: missing"
    if kind == "value_error":
        return f"{key}.{error['ctx']['error']}" if key else str(error["ctx"]["error"])
    if kind in ("model_type", "dict_type"):
        got = "nothing" if error["input"] is None else given
        return f"{key}: must be a section that holds keys, got {got}"
    if kind == "too_short":
        return f"{key}: must hold at least {error['ctx']['min_length']}, got {given}"
    if kind == "string_pattern_mismatch":
        return f"{key}: must consist of {_PATTERNS[error['ctx']['pattern']]}, got {given}"
    if kind == "string_type" and isinstance(error["input"], int | float):
        return f"{key}: must be text, got the number {given}; quote it"
    return f"{key}: {error['msg']}, got {given}"


def _section(schema: type[Section], keys: tuple[str | int, ...]) -> type[Section]:
    """The section that `keys` lead to; some are names in a table, not of its options."""
    for key in keys:
        if str(key) in schema.model_fields:
            schema = _inner(schema.model_fields[str(key)].annotation) or schema
    return schema


def _inner(kind: Any) -> type[Section] | None:
    """The section that an annotation holds, be it in a table or a choice."""
    if isinstance(kind, type) and issubclass(kind, Section):
        return kind
    return next(filter(None, map(_inner, get_args(kind))), None)
