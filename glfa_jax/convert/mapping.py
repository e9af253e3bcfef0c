"""The conversion engine: PyTorch tensors by name <-> linen parameters by path, total both ways.

Linen submodules carry the PyTorch names, list indices included (`name="blocks.3"`), so a path
joined by dots is the PyTorch name but for the leaf. A `Table` says only what differs.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from glfa_jax.convert.stored import Stored
from glfa_jax.convert.stream import is_floating
from glfa_jax.errors import InputError


class ConversionError(InputError):
    """Source and target do not fit; the message lists every difference at once."""

    listed = True


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
POINTWISE3D = Transform(
    "POINTWISE3D", lambda x: x[:, :, 0, 0, 0].T, lambda x: x.T[:, :, None, None, None]
)
# A number a channel, which PyTorch stores with axes of length 1 for what has channels first.
CHANNELS2D = Transform("CHANNELS2D", lambda x: x[:, 0, 0], lambda x: x[:, None, None])
CHANNELS3D = Transform("CHANNELS3D", lambda x: x[:, 0, 0, 0], lambda x: x[:, None, None, None])
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


class Place(NamedTuple):
    """Where one tensor goes: its PyTorch name, its path in the tree, and the change of layout."""

    name: str
    path: tuple[str, ...]
    transform: Transform


class Fit(NamedTuple):
    """Which tensors find their place, and one line for each difference."""

    places: list[Place]
    problems: list[str]


def fit(source: Mapping[str, Any], target: Any, table: Table) -> Fit:
    """Compares PyTorch tensors with a tree of arrays or shapes; their values are not looked at.

    Without problems every tensor that the table does not ignore, and every leaf, occurs once.
    """
    wanted = _named_leaves(target, table)
    problems = [f"missing: {name}" for name in wanted if name not in source]
    unused = [name for name in source if name not in wanted and not table.ignores(name)]
    # Others' names may hold line breaks and instructions to the terminal.
    problems += [f"unused: {name if name.isprintable() else repr(name)}" for name in unused]
    places = []
    for name, (path, leaf) in wanted.items():
        if name not in source:
            continue
        dtype = source[name].dtype
        if is_floating(leaf.dtype) and not is_floating(dtype):
            problems.append(f"dtype: {name} is {dtype}, expected floating-point numbers")
        transform, shape = table.transform(path, leaf.ndim), tuple(source[name].shape)
        # Compared in PyTorch's layout: some transforms would drop what is too much.
        expected = transform.to_torch(np.broadcast_to(np.zeros((), bool), leaf.shape)).shape
        if shape == expected:
            places.append(Place(name, path, transform))
        else:
            problems.append(f"shape: {name} is {shape}, expected {expected}")
    return Fit(places, problems)


def places(source: Mapping[str, Any], target: Any, table: Table) -> list[Place]:
    """Where every tensor goes. Raises ConversionError listing all that does not fit."""
    found, problems = fit(source, target, table)
    if problems:
        raise unfitting(problems)
    return found


def unfitting(problems: list[str]) -> ConversionError:
    """The error that lists them."""
    listing = "\n  ".join(problems)
    return ConversionError(f"{len(problems)} tensors do not fit:\n  {listing}")


def stored_params(
    source: Mapping[str, np.ndarray], target: Any, table: Table, *, dtype: Any = None
) -> dict:
    """`target` (a tree of arrays or shapes) with PyTorch tensors in its places, each used once.

    `dtype`: of what is read; as in the source when None.
    """
    return unflatten_dict(_stored(source, target, table, dtype))


def _stored(
    source: Mapping[str, np.ndarray], target: Any, table: Table, dtype: Any
) -> dict[tuple[str, ...], Stored]:
    return {
        path: Stored(source[name], transform.to_linen, np.dtype(dtype or source[name].dtype))
        for name, path, transform in places(source, target, table)
    }


def import_params(
    source: Mapping[str, np.ndarray], target: Any, table: Table, *, dtype: Any = None
) -> dict:
    """`stored_params` in memory: every leaf is a copy, made one at a time."""
    found = _stored(source, target, table, dtype)
    return unflatten_dict({path: np.asarray(leaf) for path, leaf in found.items()})


def renamed(
    source: Mapping[str, np.ndarray], current: Callable[[str], str]
) -> dict[str, np.ndarray]:
    """The tensors by their current names; where there is one of that name too, both stay."""
    return {
        name if current(name) in source else current(name): tensor
        for name, tensor in source.items()
    }


def export_views(params: Any, table: Table) -> dict[str, Any]:
    """The exact inverse of `stored_params`: PyTorch tensors by name, without copying any."""

    def view(leaf: Any, transform: Transform) -> Any:
        return leaf.in_torch() if isinstance(leaf, Stored) else transform.to_torch(np.asarray(leaf))

    return {
        name: view(leaf, table.transform(path, leaf.ndim))
        for name, (path, leaf) in _named_leaves(params, table).items()
    }


def export_params(params: Any, table: Table) -> dict[str, np.ndarray]:
    """`export_views` with every tensor contiguous."""
    views = export_views(params, table)
    return {name: np.asarray(tensor, order="C") for name, tensor in views.items()}
