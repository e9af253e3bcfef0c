"""How arrays lie on the devices.

The mesh has three axes. Rows of a batch are sharded over "data" and "fsdp"; large parameters lie in
pieces over "fsdp"; over "frame" the generator shards the frames of a clip, where there are more
devices than clips.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from glfa_jax import config
from glfa_jax.errors import TrainingError

AXES = ("data", "fsdp", "frame")
ROWS = P(("data", "fsdp"))
EXACT = "exact"  # below this key parameters keep their dtype


def make_mesh(size: config.MeshSize, *, devices: Any = None) -> Mesh:
    """The devices, all or those given, as a mesh; raises TrainingError where they do not fit."""
    devices = jax.devices() if devices is None else devices
    others = size.fsdp * size.frame
    data = size.data or max(len(devices) // others, 1)
    if data * others != len(devices):
        raise TrainingError(
            f"hardware.mesh: data {size.data or 'left out'} x fsdp {size.fsdp} x frame "
            f"{size.frame} does not give the number of devices, {len(devices)}; "
            "--set 'hardware.mesh={}' fits any number: each then holds the whole model"
        )
    shape = (data, size.fsdp, size.frame)
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def process_share(mesh: Mesh) -> tuple[int, int]:
    """Which part of every batch this process loads, and of how many parts.

    Processes that differ only along "frame" load the same part.
    """
    lines = mesh.devices.reshape(-1, mesh.shape["frame"])  # devices that share rows
    mine = [i for i, line in enumerate(lines) if any(_is_local(device) for device in line)]
    first, count = mine[0], len(mine)
    if mine != list(range(first, first + count)) or first % count or len(lines) % count:
        raise TrainingError(
            f"hardware.mesh: {dict(mesh.shape)} gives process {jax.process_index()} no even part "
            "of the batch; let the devices of a process lie side by side along data and fsdp"
        )
    return first // count, len(lines) // count


def _is_local(device: Any) -> bool:
    return device.process_index == jax.process_index()


def param_shardings(
    tree: Any,
    mesh: Mesh | AbstractMesh,
    *,
    rules: Mapping[str, tuple[str | None, ...]] | None = None,
    from_bytes: int,
) -> Any:
    """One sharding a leaf: by the first rule whose pattern is found in its path; else arrays of
    `from_bytes` or more along their largest axis that divides; else whole on every device.

    Optimizer moments have the shapes and paths of their parameters and so lie beside them. Raises
    TrainingError for a rule that fits nothing, or no leaf that it names.
    """
    ways, used = mesh.shape["fsdp"], set()

    def lay(path: Any, x: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for pattern, axes in (rules or {}).items():
            if re.search(pattern, name):
                used.add(pattern)
                return NamedSharding(mesh, _by_rule(name, x.shape, pattern, axes, ways))
        whole = math.prod(x.shape) * x.dtype.itemsize < max(from_bytes, 1)
        axes = [axis for axis, length in enumerate(x.shape) if length and length % ways == 0]
        if ways == 1 or whole or not axes:
            return replicated(mesh)
        axis = max(axes, key=lambda axis: x.shape[axis])
        return NamedSharding(mesh, P(*[None] * axis, "fsdp"))

    shardings = jax.tree_util.tree_map_with_path(lay, tree)
    if unused := [pattern for pattern in rules or {} if pattern not in used]:
        raise TrainingError(f"hardware.sharding: no parameter is named by {', '.join(unused)}")
    return shardings


def _by_rule(
    name: str, shape: tuple[int, ...], pattern: str, axes: tuple[str | None, ...], ways: int
) -> P:
    fits = len(axes) == len(shape) and not any(
        axis and length % ways for axis, length in zip(axes, shape, strict=True)
    )
    if not fits:
        raise TrainingError(
            f"hardware.sharding: {pattern}: {list(axes)} does not divide {name} of shape "
            f"{list(shape)} over {ways} devices"
        )
    return P(*axes)


def describe(shardings: Any, tree: Any) -> str:
    """How many parameters lie where, and every one that is cut."""
    lines, cut, whole = [], 0, 0
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    for (path, x), where in zip(leaves, jax.tree.leaves(shardings), strict=True):
        size = math.prod(x.shape)
        if any(where.spec):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            lines.append(f"  {name} {list(x.shape)}: {where.spec}")
            cut += size
        else:
            whole += size
    return "\n".join([f"{cut:,} parameters in pieces, {whole:,} whole on every device", *lines])


def set_apart(tree: dict, patterns: Sequence[str]) -> dict:
    """Moves what a pattern is found in, by '/'-joined paths, below `EXACT`, where no dtype
    changes."""
    flat: dict[tuple[str, ...], Any] = flatten_dict(tree)

    def exact(path: tuple[str, ...]) -> bool:
        return any(re.search(pattern, "/".join(path)) for pattern in patterns)

    return unflatten_dict({(EXACT, *p) if exact(p) else p: x for p, x in flat.items()})


def put_back(tree: dict) -> dict:
    """The inverse of `set_apart`."""
    flat: dict[tuple[str, ...], Any] = flatten_dict(tree)
    return unflatten_dict({p[p[0] == EXACT :]: x for p, x in flat.items()})


def shapes_in(tree: Any, dtype: Any) -> Any:
    """Shapes of parameters whose floating-point ones become `dtype`, or stay as they are: None.

    Those that are `set_apart` stay as well.
    """

    def kept(path: Any, x: Any) -> Any:
        changed = dtype is not None and jnp.issubdtype(x.dtype, jnp.floating)
        changed = changed and jax.tree_util.DictKey(EXACT) not in path
        return jax.ShapeDtypeStruct(x.shape, dtype if changed else x.dtype)

    return jax.tree_util.tree_map_with_path(kept, tree)


def place_params(
    tree: Any, mesh: Mesh, *, copy: bool, from_bytes: int, dtype: Any = None, **rules: Any
) -> Any:
    """Puts parameters on the mesh; with `copy`, the caller's own arrays survive a donation.

    One after the other: those that are still in their files (convert.stored) are read, cast and
    placed, and never in memory twice. dtype: what floating-point arrays are cast to; as they are
    when left out.
    """

    def put(x: Any, shape: Any, where: NamedSharding) -> jax.Array:
        own = x if isinstance(x, jax.Array) else np.asarray(x)
        # Waits, since a transfer under way holds its source.
        return jax.block_until_ready(place(own.astype(shape.dtype, copy=False), where, copy=copy))

    shapes = shapes_in(tree, dtype)
    where = param_shardings(shapes, mesh, from_bytes=from_bytes, **rules)
    return jax.tree.map(put, tree, shapes, where)


def place(x: Any, where: NamedSharding, *, copy: bool) -> jax.Array:
    """Puts an array that every process has in whole, or has the file of."""
    x = x if isinstance(x, jax.Array) else np.asarray(x)
    if where.is_fully_addressable:
        return jax.device_put(x, where, may_alias=False if copy else None)
    # Here `device_put` would compare the array over all processes, and cannot copy.
    whole = np.array(x) if copy else np.asarray(x)
    return jax.make_array_from_callback(whole.shape, where, lambda index: whole[index])


def place_batch(batch: Any, mesh: Mesh, *, parts: int = 1) -> Any:
    """Puts a batch on the mesh; each process passes its own share of the rows.

    parts: that every device must be able to cut its rows into.
    """
    rows = {len(x) for x in jax.tree.leaves(batch)}
    _, count = process_share(mesh)
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    if len(rows) != 1 or (total := rows.pop() * count) % (ways * parts):
        shapes = sorted({tuple(x.shape) for x in jax.tree.leaves(batch)})
        raise TrainingError(
            "every array of a batch must have the same number of rows, a multiple of "
            f"{ways * parts}: {ways} devices share them"
            f"{f' in {parts} parts' if parts > 1 else ''}; here {count} processes have {shapes}"
        )
    where = NamedSharding(mesh, ROWS)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(where, x, (total, *x.shape[1:])), batch
    )


def to_host(tree: Any) -> Any:
    """Whole arrays as numpy, on every process."""

    def whole(x: Any) -> np.ndarray:
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            x = multihost_utils.process_allgather(x, tiled=True)
        return np.asarray(x)

    return jax.tree.map(whole, tree)
