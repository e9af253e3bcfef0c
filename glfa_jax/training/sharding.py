"""How arrays lie on the devices."""

import math
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from glfa_jax.training.state import TrainingError

# Smaller arrays cost more to gather than they save.
_SHARDED_FROM_BYTES = 4 * 2**20


def make_mesh(shape: tuple[int, int] | None = None) -> Mesh:
    """The devices as ("data", "fsdp"); without a shape, all of them along "data".

    The batch is cut over both axes; large parameters over "fsdp".
    """
    shape = shape or (jax.device_count(), 1)
    if math.prod(shape) != jax.device_count():
        raise TrainingError(
            f"mesh {shape}: needs {math.prod(shape)} devices, there are {jax.device_count()}"
        )
    return jax.make_mesh(shape, ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Leading axis over every device."""
    return NamedSharding(mesh, P(("data", "fsdp")))


def param_shardings(tree: Any, mesh: Mesh) -> Any:
    """One sharding a leaf: arrays over 4 MiB along their largest divisible axis, else whole.

    Optimizer moments have the shapes of their parameters and so lie beside them.
    """
    ways = mesh.shape["fsdp"]

    def spec(x: Any) -> NamedSharding:
        size = math.prod(x.shape) * x.dtype.itemsize
        axes = [axis for axis, length in enumerate(x.shape) if length % ways == 0]
        if ways == 1 or size <= _SHARDED_FROM_BYTES or not axes:
            return replicated(mesh)
        axis = max(axes, key=lambda axis: x.shape[axis])
        return NamedSharding(mesh, P(*[None] * axis, "fsdp"))

    return jax.tree.map(spec, tree)


def place_params(tree: Any, mesh: Mesh, *, copy: bool) -> Any:
    """Puts parameters on the mesh; with `copy`, the caller's own arrays survive a donation."""
    return jax.tree.map(
        lambda x, where: jax.device_put(x, where, may_alias=False if copy else None),
        tree,
        param_shardings(tree, mesh),
    )


def place_batch(batch: Any, mesh: Mesh) -> Any:
    """Puts a batch on the mesh; each process passes its own rows."""
    rows = {len(x) for x in jax.tree.leaves(batch)}
    count = jax.process_count()
    if len(rows) != 1 or (total := rows.pop() * count) % mesh.size:
        raise TrainingError(
            f"every array of a batch must have the same number of rows, a multiple of the "
            f"{mesh.size} devices; the shapes are {[x.shape for x in jax.tree.leaves(batch)]}"
        )
    where = batch_sharding(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(where, x, (total, *x.shape[1:])), batch
    )
