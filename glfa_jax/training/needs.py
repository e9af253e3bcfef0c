"""What a stage holds on every device before it computes anything, from shapes alone."""

from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh

from glfa_jax import config
from glfa_jax.errors import TrainingError
from glfa_jax.training import room, speed
from glfa_jax.training.sharding import param_shardings, shapes_in
from glfa_jax.training.state import TrainState


@dataclass(frozen=True)
class Needs:
    """Bytes on the device that holds most: trained parameters, AdamW's moments, gradients, frozen
    parameters. checkpoint: of all devices together, on the disk."""

    trained: int
    moments: int
    gradients: int
    frozen: int
    checkpoint: int

    @property
    def on_device(self) -> int:
        return self.trained + self.moments + self.gradients + self.frozen


def frozen_shapes(frozen: Any, mesh: Mesh | AbstractMesh, hardware: config.Hardware) -> Any:
    """Shapes, types and shardings of what does not train, as it is placed."""
    shapes = shapes_in(frozen, hardware.frozen_dtype)
    return jax.tree.map(
        lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
        shapes,
        param_shardings(shapes, mesh, from_bytes=hardware.shard_from_bytes),
    )


def needs_of(state: TrainState, frozen: Any) -> Needs:
    """state, frozen: shapes with shardings (`step.abstract_state`, `frozen_shapes`)."""
    trained, moments = _held(state.params), _held(state.opt_state)
    return Needs(trained, moments, trained, _held(frozen), room.size_of(state))


def validate(name: str, needs: Needs, mesh: Mesh) -> None:
    """Raises TrainingError where parameters alone are more than a device of the mesh has.

    Activations come on top of them: `--compile-only` says how much.
    """
    most = speed.capacity(mesh.devices.flat[0], here=True, sharing=mesh.size)
    if most is not None and needs.on_device > most:
        raise TrainingError(
            f"{name}: parameters, moments and gradients take {room.shown(needs.on_device)} on each "
            f"device, {room.shown(needs.on_device - most)} more than it has; share them "
            "(hardware.mesh.fsdp), train less (cotrain.trainable: lora), or keep them smaller "
            "(hardware.frozen_dtype, hardware.moment_dtype)"
        )


def _held(tree: Any) -> int:
    """Bytes on one device."""
    total = 0
    for x in jax.tree.leaves(tree):
        part = jax.ShapeDtypeStruct(x.sharding.shard_shape(x.shape), x.dtype)
        total += part.size * part.dtype.itemsize
    return total
