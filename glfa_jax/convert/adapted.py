"""The kinds of models that have LoRA weights, and how files name their layers."""

import re
from typing import NamedTuple

from glfa_jax.convert import unet3d, wan
from glfa_jax.convert.mapping import Table


class Adapted(NamedTuple):
    """A kind of model that has LoRA weights.

    part: its name in a pipeline of diffusers. original: (pattern, replacement) pairs that make of a
    layer's name the one that its authors gave it.
    """

    part: str
    table: Table
    original: tuple[tuple[str, str], ...] = ()

    def module_name(self, path: tuple[str, ...]) -> str:
        """The layer of a kernel, as PyTorch names it."""
        return self.table.torch_name(path).removesuffix(".weight")

    def original_name(self, module: str) -> str:
        for pattern, replacement in self.original:
            module = re.sub(pattern, replacement, module)
        return module


ADAPTED = {
    "unet3d": Adapted("unet", unet3d.TABLE),
    "wan": Adapted("transformer", wan.TABLE, wan.ORIGINAL),
}
