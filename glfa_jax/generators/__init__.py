"""Video generators conditioned on tokens: one protocol, one registry, one folder a generator.

A generator is a class that fulfils `Generator` and registers itself under the name by which a
configuration asks for it (`generator: unet3d`):

    @register("mine")
    @dataclass(frozen=True)
    class MyGenerator: ...

A folder of this package is found by itself; a class of another package is known once the module
that holds it is imported.
"""

from dataclasses import fields, is_dataclass
from inspect import get_annotations

from glfa_jax.generators.protocol import Generator, Trainable
from glfa_jax.registry import Registry

__all__ = ["GENERATORS", "Generator", "Trainable", "register"]


def _lacks(kind: type) -> str:
    """Members of the protocol that a class has neither as attribute nor as field."""
    members = [name for name in vars(Generator) if not name.startswith("_")]
    members += [name for name in get_annotations(Generator) if name != "name"]  # set by `register`
    own = {field.name for field in fields(kind)} if is_dataclass(kind) else set()
    missing = [name for name in members if not hasattr(kind, name) and name not in own]
    return f"lacks {', '.join(missing)} of the protocol (generators/protocol.py)" if missing else ""


GENERATORS: Registry[type[Generator]] = Registry(__name__, what="generator", lacks=_lacks)
register = GENERATORS.register_as
