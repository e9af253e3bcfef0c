"""The one place where models know of a mesh: which axis the devices along "frame" share."""

import jax
from jax import Array, lax
from jax.sharding import PartitionSpec as P


def deal(x: Array, *, axis: int) -> Array:
    """Lays clips, (b, ...), over the mesh in use, with `axis` over the devices along "frame".

    Layers that see every frame alone want the frames dealt out; layers over time want all frames
    of a pixel on one device, and pixels dealt out. Without a mesh, or where it has one device along
    "frame", nothing happens.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape.get("frame", 1) == 1:
        return x
    rows = tuple(name for name in mesh.axis_names if name != "frame")
    spec = [rows, *[None] * (x.ndim - 1)]
    spec[axis] = "frame"
    return lax.with_sharding_constraint(x, P(*spec))


def to_pixels(x: Array) -> Array:
    """(b, f, h, w, c) with frames dealt to (b, h, w, f, c) with rows of pixels dealt.

    Both sides are fixed, for what flows back as well: between one that is fixed and one that is
    not, XLA's partitioner (jaxlib 0.10) deals the two factors of a Dense kernel's gradient
    differently, and the gradient is wrong.
    """
    return deal(deal(x, axis=1).transpose(0, 2, 3, 1, 4), axis=1)


def to_frames(x: Array) -> Array:
    """Back again."""
    return deal(deal(x, axis=1).transpose(0, 3, 1, 2, 4), axis=1)
