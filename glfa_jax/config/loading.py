"""Reads and writes configurations, and compares them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glfa_jax import strict_yaml
from glfa_jax.config.base import ConfigError, Section
from glfa_jax.config.schema import Config
from glfa_jax.config.validating import Schema, parse, validated
from glfa_jax.files import read_text


def load(
    path: str | Path,
    overrides: list[str] | tuple[str, ...] = (),
    *,
    schema: type[Schema] = Config,
) -> Schema:
    """Reads a configuration file and applies `section.key=value` overrides.

    Raises ConfigError with one sentence a mistake; nothing is created on disk.
    """
    path = Path(path)
    tree = parse(read_text(path, error=ConfigError), str(path))
    if not isinstance(tree, dict):
        held = "nothing" if tree is None else f"a {type(tree).__name__}"
        raise ConfigError(f"{path}: must hold sections and keys, holds {held}")
    return validated(tree, overrides, schema=schema, source=str(path))


def of(
    given: Mapping[str, Any], *, schema: type[Schema] = Config, source: str = "configuration"
) -> Schema:
    """A configuration, or a section of it, from its options; raises ConfigError."""
    return validated(dict(given), (), schema=schema, source=source)


def dump(config: Section) -> str:
    """The resolved configuration as YAML that `load` reads back to the same values."""
    return strict_yaml.dump(config.model_dump(mode="json"))


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Options by their full keys, as in `evaluation.clips`."""
    out: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = value
    return out


def differences(ours: Section, theirs: Section) -> list[str]:
    """Every key on which two configurations differ, as `key: ours | theirs`.

    Options of LEA, whose defaults have changed, count only where one of the two is by that method.
    """
    a, b = flat(ours.model_dump(mode="json")), flat(theirs.model_dump(mode="json"))
    unused = a.get("method") == b.get("method") == "glfa"
    return [
        f"{key}: {a.get(key)} | {b.get(key)}"
        for key in a | b
        if a.get(key) != b.get(key) and not (unused and key.startswith("lea."))
    ]
