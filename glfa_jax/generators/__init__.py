"""Video generators conditioned on tokens: one protocol, one registry, one folder a generator.

A generator is a class that fulfils `Generator` and registers itself under the name by which a
configuration asks for it (`generator: unet3d`):

    @register("mine")
    @dataclass(frozen=True)
    class MyGenerator: ...

A folder of this package is found by itself; a class of another package is known once the module
that holds it is imported.
"""

from glfa_jax.generators.protocol import Generator, Trainable
from glfa_jax.registry import Registry

__all__ = ["GENERATORS", "Generator", "Trainable", "register"]

GENERATORS: Registry[type[Generator]] = Registry(__name__, what="generator")
register = GENERATORS.register_as
