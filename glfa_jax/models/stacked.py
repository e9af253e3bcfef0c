"""Parameters of equal blocks, kept as one array each, as a loop over the blocks reads them.

In a tree of parameters `blocks.0`, `blocks.1`, ... make up a list. What all of them have may lie
stacked below `blocks.*` in their place, and what is not stacked beside it, below the blocks' names.
`equal_blocks.run_equal` reads both. To stack in every step what never changes would take its memory
twice.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from numpy.typing import DTypeLike

ALL = "*"
Path = tuple[str, ...]

_BLOCK = re.compile(r"(.+)\.(\d+)")


@dataclass(frozen=True, eq=False)
class Stack:
    """Arrays of one shape that are stacked when numpy asks for them, and read only then."""

    parts: tuple[Any, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.parts), *self.parts[0].shape)

    @property
    def dtype(self) -> np.dtype:
        return self.parts[0].dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        whole = np.empty(self.shape, self.dtype if dtype is None else dtype)
        for place, part in zip(whole, self.parts, strict=True):
            place[...] = np.asarray(part)
        return whole


def stacked(params: dict, *, lists: Iterable[str], trained: dict | None = None) -> dict:
    """The same parameters, those of blocks as one array of all blocks' each.

    lists: names of what is stacked, such as "blocks". trained: parameters of the model besides
    these; what any block has there is stacked of none. Leaves are arrays, which become a `Stack`,
    or abstract.
    """
    named = {f"{name}.{ALL}" for name in lists}
    apart = {in_stack(path)[0] for path in flatten_dict(trained or {})}
    rest: dict[Path, Any] = {}
    of_blocks: dict[Path, dict[int, Any]] = defaultdict(dict)
    for path, leaf in flatten_dict(params).items():
        whole, number = in_stack(path)
        if number is None or whole in apart or named.isdisjoint(whole):
            rest[path] = leaf
        else:
            of_blocks[whole][number] = leaf
    for whole, parts in of_blocks.items():
        rest[whole] = _stack([parts[i] for i in sorted(parts)])
    return unflatten_dict(rest)


def in_stack(path: Path) -> tuple[Path, int | None]:
    """Where a block's parameter lies in a stack, and at which place; of others, path and None."""
    for at, name in enumerate(path):
        if found := _BLOCK.fullmatch(name):
            return (*path[:at], f"{found[1]}.{ALL}", *path[at + 1 :]), int(found[2])
    return path, None


def _stack(parts: list[Any]) -> Any:
    first = parts[0]
    if isinstance(first, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct((len(parts), *first.shape), first.dtype)
    return Stack(tuple(parts))
