"""What operations ask of the devices that they are compiled for, which may not be here."""

import math

import jax
from jax.sharding import AxisType


def platform() -> str:
    """Of the devices of the mesh in use, which may not be here; else of those at hand."""
    devices = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if devices is None else devices.platform


def shared_axes() -> dict[str, int]:
    """Name and size of the axes of the mesh in use along which an operation may be cut: those that
    the compiler partitions. Empty where a single device computes."""
    mesh = jax.sharding.get_abstract_mesh()
    free = {
        name: mesh.shape[name]
        for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True)
        if kind == AxisType.Auto
    }
    return free if math.prod(free.values()) > 1 else {}
