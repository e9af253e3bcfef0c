"""Alignments by name. A file in this folder that registers one is all that a new one takes."""

from collections.abc import Mapping
from dataclasses import fields
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


def get(name: str, *, key: str = "alignment.method") -> type[Alignment]:
    """The class of that name; raises InputError for a name that there is not.

    key: of the configuration, which the error names.
    """
    return ALIGNMENTS.named(name, key=key)


def configured(settings: Config) -> Alignment:
    """The method of a configuration, with its options; raises InputError where they do not fit."""
    own = settings.alignment
    if not settings.aligned:
        return get("identity")()
    method = get(own.method).from_settings(settings)
    if method.needs == "anatomy":
        raise InputError(
            f"alignment.method: {own.method} learns from how training subjects were aligned, so it "
            "serves new subjects alone (adapt.method); train with warp"
        )
    if method.beforehand is not None and not own.per_subject:
        raise InputError(
            f"alignment.per_subject: must be true with alignment.method {own.method}, which is "
            "fitted to every subject"
        )
    return method


def described(config: Mapping[str, Any], *, place: str) -> Alignment:
    """The method of a layer on disk, by its config.json (`Alignment.describe`).

    GLFA's layers name no method, as they were written before there were others.
    """
    if "method" not in config:
        glfa = get("glfa")
        options = {field.name: config[field.name] for field in fields(glfa) if field.name in config}
        return glfa.from_options(options, place=place)
    options = config.get("options", {})
    if not isinstance(options, dict):
        raise InputError(f"{place}: options must be an object")
    return get(str(config.get("method"))).from_options(options, place=place)


def data_for_strangers(settings: Config) -> str:
    """What a new subject's layer is fitted to: anatomy, paired, unlabelled or unlabelled-test.

    Left open, it is the least that the method, or training the encoder, needs. Raises InputError
    where the method needs more than is asked for, or no fMRI at all.
    """
    method, asked = for_strangers(settings), settings.adapt.data
    if method.needs == "anatomy" and asked is not None:
        raise InputError(
            f"adapt.data: {asked}, but {method.name} is fitted to no fMRI; must be left out"
        )
    if method.needs == "anatomy" and settings.adapt.with_encoder:
        raise InputError(
            f"adapt.encoder.steps: must be 0 with {method.name}, which is fitted to no fMRI"
        )
    if method.needs == "paired" and asked not in (None, "paired"):
        raise InputError(
            f"adapt.data: {asked}, but {method.name} needs clips that training subjects saw as "
            "well (paired); warp needs none"
        )
    return asked or ("paired" if settings.adapt.with_encoder else method.needs)


def minutes_for_strangers(settings: Config, minutes: float | None, *, key: str) -> float:
    """Minutes of fMRI that a new subject's layer is fitted to, 0 where the method needs none.

    Raises InputError, which names the key, for minutes that do not go with the method.
    """
    if data_for_strangers(settings) == "anatomy":
        if minutes:
            raise InputError(
                f"{key}: {minutes:g}, but {for_strangers(settings).name} needs no fMRI of the "
                "subject; must be 0"
            )
    elif not minutes:
        given = "" if minutes is None else f"{minutes:g}, but "
        raise InputError(
            f"{key}: {given}must be above 0, as {for_strangers(settings).name} is fitted to fMRI"
        )
    return minutes or 0.0


def for_strangers(settings: Config) -> Alignment:
    """The method that is fitted to new subjects: `adapt.method`, or else the run's own."""
    own = settings.adapt
    if own.method is None:
        return configured(settings)
    kind = get(own.method, key="adapt.method")
    if own.method == "glfa":
        return kind.from_settings(settings)
    method = kind.from_options(own.options, place="adapt.options")
    if method.needs == "nothing":
        raise InputError(f"adapt.method: {own.method} has nothing to be fitted")
    return method
