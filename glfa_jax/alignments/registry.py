"""Alignments by name. A file in this folder that registers one is all that a new one takes."""

from collections.abc import Mapping
from inspect import get_annotations
from typing import Any, get_args

from glfa_jax.alignments.protocol import Alignment, Needs
from glfa_jax.config import Config
from glfa_jax.errors import InputError
from glfa_jax.registry import Registry


def _lacks(kind: type) -> str:
    """Why a class is no alignment, as a phrase."""
    if not issubclass(kind, Alignment):
        return "is no subclass of Alignment"
    missing = sorted(kind.__abstractmethods__)
    if getattr(kind, "needs", None) not in get_args(Needs):
        missing.append(f"needs, one of {', '.join(get_args(Needs))}")
    if missing:
        return f"lacks {' and '.join(missing)}"
    if get_annotations(kind) and "__dataclass_params__" not in vars(kind):
        return "must have @dataclass(frozen=True) below @register, which makes its fields options"
    return ""


ALIGNMENTS: Registry[type[Alignment]] = Registry(
    "glfa_jax.alignments", what="alignment", lacks=_lacks
)
register = ALIGNMENTS.register_as


def get(name: str) -> type[Alignment]:
    """The class of that name; raises InputError for a name that there is not."""
    return ALIGNMENTS.named(name, key="alignment.method")


def configured(settings: Config) -> Alignment:
    """The method of a configuration, with its options; raises InputError where they do not fit."""
    own = settings.alignment
    if not settings.aligned:
        return get("identity")()
    method = get(own.method).from_settings(settings)
    if method.needs != "nothing" and not method.trainable and not own.per_subject:
        raise InputError(
            f"alignment.per_subject: must be true with alignment.method {own.method}, which is "
            "fitted to every subject"
        )
    return method


def described(config: Mapping[str, Any], *, place: str) -> Alignment:
    """The method of a layer on disk, by its config.json (`Alignment.describe`)."""
    options = config.get("options", {})
    if not isinstance(options, dict):
        raise InputError(f"{place}: options must be an object")
    return get(str(config.get("method"))).from_options(options, place=place)
