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
from typing import Any, NamedTuple

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


def stacked(params: dict, *, lists: Iterable[str]) -> dict:
    """The same parameters, those that every block of a list has as one array.

    lists: their names, such as "blocks". Leaves are arrays, which become a `Stack`, or abstract.
    """
    named = set(lists)
    rest: dict[Path, Any] = {}
    of_blocks: dict[Path, dict[int, Any]] = defaultdict(dict)
    for path, leaf in flatten_dict(params).items():
        whole, number = in_stack(path)
        if number is not None and _list_in(whole).name in named:
            of_blocks[whole][number] = leaf
        else:
            rest[path] = leaf
    count: dict[_List, int] = {}
    for whole, parts in of_blocks.items():
        count[_list_in(whole)] = max(count.get(_list_in(whole), 0), 1 + max(parts))
    for whole, parts in of_blocks.items():
        shapes = {(tuple(part.shape), part.dtype) for part in parts.values()}
        if len(parts) == count[_list_in(whole)] and len(shapes) == 1:
            rest[whole] = _stack([parts[i] for i in sorted(parts)])
        else:
            rest |= {_of_block(whole, i): part for i, part in parts.items()}
    return unflatten_dict(rest)


def in_stack(path: Path) -> tuple[Path, int | None]:
    """Where a block's parameter lies in a stack, and at which place; of others, path and None."""
    for at, name in enumerate(path):
        if found := _BLOCK.fullmatch(name):
            return (*path[:at], f"{found[1]}.{ALL}", *path[at + 1 :]), int(found[2])
    return path, None


class _List(NamedTuple):
    above: Path
    name: str


def _list_in(whole: Path) -> _List:
    at = next(i for i, name in enumerate(whole) if name.endswith(f".{ALL}"))
    return _List(whole[:at], whole[at].removesuffix(f".{ALL}"))


def _of_block(whole: Path, number: int) -> Path:
    above, name = _list_in(whole)
    return (*above, f"{name}.{number}", *whole[len(above) + 1 :])


def _stack(parts: list[Any]) -> Any:
    first = parts[0]
    if isinstance(first, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct((len(parts), *first.shape), first.dtype)
    return Stack(tuple(parts))
