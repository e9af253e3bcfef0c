"""The conversion engine: PyTorch tensors by name <-> linen parameters by path, total both ways.

Linen submodules carry the PyTorch names, list indices included (`name="blocks.3"`), so a path
joined by dots is the PyTorch name but for the leaf. A `Table` says only what differs.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from glfa_jax.errors import InputError


class ConversionError(InputError):
    """Source and target do not fit; the message lists every difference at once."""


@dataclass(frozen=True)
class Transform:
    """How one tensor changes its layout: `to_linen` and its exact inverse `to_torch`."""

    name: str
    to_linen: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]


def _transpose(name: str, axes: tuple[int, ...]) -> Transform:
    inverse = tuple(int(i) for i in np.argsort(axes))
    return Transform(name, lambda x: x.transpose(axes), lambda x: x.transpose(inverse))


SAME = Transform("SAME", lambda x: x, lambda x: x)
LINEAR = _transpose("LINEAR", (1, 0))
CONV1D = _transpose("CONV1D", (2, 1, 0))
CONV2D = _transpose("CONV2D", (2, 3, 1, 0))
CONV3D = _transpose("CONV3D", (2, 3, 4, 1, 0))
# A 1x1 convolution in PyTorch that is a Dense here.
POINTWISE1D = Transform("POINTWISE1D", lambda x: x[:, :, 0].T, lambda x: x.T[:, :, None])
POINTWISE2D = Transform("POINTWISE2D", lambda x: x[:, :, 0, 0].T, lambda x: x.T[:, :, None, None])
# A (3, 1, 1) convolution in PyTorch that is a convolution over time alone here.
TEMPORAL = Transform(
    "TEMPORAL",
    lambda x: x[:, :, :, 0, 0].transpose(2, 1, 0),
    lambda x: x.transpose(2, 1, 0)[:, :, :, None, None],
)

_KERNELS = {2: LINEAR, 3: CONV1D, 4: CONV2D, 5: CONV3D}
_LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}


@dataclass(frozen=True)
class Table:
    """What is special about one model's names.

    `rename`: (pattern, replacement) pairs applied in order to the dotted linen path with its leaf
    already in PyTorch's terms, giving the PyTorch name; `transforms`: (pattern on the PyTorch name,
    transform) where the linen leaf's kind does not tell it, first match wins; `ignore`: patterns of
    source tensors that carry no information (position indices and the like).
    """

    rename: tuple[tuple[str, str], ...] = ()
    transforms: tuple[tuple[str, Transform], ...] = ()
    ignore: tuple[str, ...] = ()

    def torch_name(self, path: tuple[str, ...]) -> str:
        name = ".".join((*path[:-1], _LEAVES.get(path[-1], path[-1])))
        for pattern, replacement in self.rename:
            name = re.sub(pattern, replacement, name)
        return name

    def transform(self, path: tuple[str, ...], ndim: int) -> Transform:
        name = self.torch_name(path)
        for pattern, transform in self.transforms:
            if re.search(pattern, name):
                return transform
        return _KERNELS[ndim] if path[-1] == "kernel" else SAME

    def ignores(self, name: str) -> bool:
        return any(re.search(pattern, name) for pattern in self.ignore)


def _named_leaves(tree: Any, table: Table) -> dict[str, tuple[tuple[str, ...], Any]]:
    named: dict[str, tuple[tuple[str, ...], Any]] = {}
    for path, leaf in flatten_dict(tree).items():
        name = table.torch_name(path)
        if name in named:
            raise ConversionError(f"two parameters map to {name!r}: {named[name][0]} and {path}")
        named[name] = (path, leaf)
    return named


def import_params(source: Mapping[str, np.ndarray], target: Any, table: Table) -> dict:
    """Fills `target` (a tree of arrays or shapes) from PyTorch tensors, each used exactly once.

    Raises ConversionError listing all missing, unused and misshapen tensors together.
    """
    wanted = _named_leaves(target, table)
    problems = [f"missing: {name}" for name in wanted if name not in source]
    unused = [name for name in source if name not in wanted and not table.ignores(name)]
    problems += [f"unused: {name}" for name in unused]
    filled: dict[tuple[str, ...], np.ndarray] = {}
    for name, (path, leaf) in wanted.items():
        if name not in source:
            continue
        transform, tensor = table.transform(path, leaf.ndim), source[name]
        # Compared in PyTorch's layout: some transforms would drop what is too much.
        expected = transform.to_torch(np.broadcast_to(np.zeros((), bool), leaf.shape)).shape
        if tensor.shape != expected:
            problems.append(f"shape: {name} is {tensor.shape}, expected {expected}")
            continue
        filled[path] = np.asarray(transform.to_linen(tensor), order="C")
    if problems:
        listing = "\n  ".join(problems)
        raise ConversionError(f"{len(problems)} tensors do not fit:\n  {listing}")
    return unflatten_dict(filled)


def export_params(params: Any, table: Table) -> dict[str, np.ndarray]:
    """The exact inverse of `import_params`: PyTorch tensors by name."""
    named = _named_leaves(params, table)
    return {
        name: np.asarray(table.transform(path, leaf.ndim).to_torch(np.asarray(leaf)), order="C")
        for name, (path, leaf) in named.items()
    }
