"""The one place where models know of a mesh: how activations lie on it."""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import PartitionSpec as P

from glfa_jax.ops.devices import platform


def shard(x: Array, *, over_frame: int | None = None) -> Array:
    """Lays activations, (b, ...), over the mesh in use: the first axis over all but "frame".

    Without being told, the compiler may gather activations where gathering weights is far cheaper.
    over_frame: the axis that the devices along "frame" share, if it divides. Layers that see every
    frame alone want the frames sharded; layers over time want all frames of a pixel on one
    device, and pixels sharded. Without a mesh, or on a single device, nothing happens.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    spec: list = [tuple(name for name in mesh.axis_names if name != "frame")]
    spec += [None] * (x.ndim - 1)
    if over_frame is not None and x.shape[over_frame] % mesh.shape.get("frame", 1) == 0:
        spec[over_frame] = "frame"
    return lax.with_sharding_constraint(x, P(*spec))


def spread(x: Array) -> Array:
    """Lays images that know nothing of each other, (b, *, *) or (b, m, *, *), over all devices.

    Devices along "frame" share the m images of a row, evenly or not; without m, rows, if they
    divide. Other ranks, and arrays without a mesh, stay as they are.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.shape.get("frame", 1) > 1 and x.ndim == 4:
        rows = tuple(name for name in mesh.axis_names if name != "frame")
        return lax.with_sharding_constraint(x, P(rows, "frame"))
    if mesh.shape.get("frame", 1) > 1 and x.ndim == 3 and len(x) % mesh.size == 0:
        return _over_all(x)
    return shard(x)


def one_axis(x: Array) -> Array:
    """On a CPU, (*b, c) to (n, c), for products whose kernels have gradients: over several axes of
    positions XLA:CPU sums them up from a transposed copy, which took a third of a step of Wan.

    Elsewhere it stays as it is: a TPU moves more memory for one axis. So it does over several
    devices, since axes that they share cannot become one in place.
    """
    mesh = jax.sharding.get_abstract_mesh()
    alone = mesh.empty or mesh.size == 1
    return x.reshape(-1, x.shape[-1]) if alone and platform() == "cpu" else x


def collapse(x: Array) -> Array:
    """(b, s, ...), laid as by `shard(over_frame=1)`, to (b * s, ...), in an order in which no image
    leaves its device: two sharded axes as one would have to be gathered. `expand` takes it back.
    """
    b, s, *rest = x.shape
    ways, frame = _shares(b, s)
    if frame == 1:
        return x.reshape(b * s, *rest)
    x = shard(x, over_frame=1).reshape(ways, b // ways, frame, s // frame, *rest)
    return _over_all(x.swapaxes(1, 2).reshape(b * s, *rest))


def expand(x: Array, *, b: int, s: int) -> Array:
    """Back again."""
    rest = x.shape[1:]
    ways, frame = _shares(b, s)
    if frame == 1:
        return x.reshape(b, s, *rest)
    x = _over_all(x).reshape(ways, frame, b // ways, s // frame, *rest)
    return shard(x.swapaxes(1, 2).reshape(b, s, *rest), over_frame=1)


def _shares(b: int, s: int) -> tuple[int, int]:
    """Into how many parts the mesh in use cuts rows and what lies along "frame"; 1 and 1 where it
    does not cut both evenly."""
    mesh = jax.sharding.get_abstract_mesh()
    frame = mesh.shape.get("frame", 1)
    ways = mesh.size // frame if frame > 1 else 1
    return (ways, frame) if b % ways == 0 and s % frame == 0 else (1, 1)


def _over_all(x: Array) -> Array:
    """The first axis over all devices, those along "frame" last."""
    names = jax.sharding.get_abstract_mesh().axis_names
    rows = tuple(name for name in names if name != "frame")
    return lax.with_sharding_constraint(x, P((*rows, "frame")))


def to_pixels(x: Array) -> Array:
    """(b, f, h, w, c) with frames sharded to (b, h, w, f, c) with rows of pixels sharded.

    Both ends are pinned, for what flows back as well: where only one was, XLA's partitioner (jaxlib
    0.10) cut the two factors of a kernel's gradient along different axes, and summed wrongly.
    """
    return shard(shard(x, over_frame=1).transpose(0, 2, 3, 1, 4), over_frame=1)


def to_frames(x: Array) -> Array:
    """Back again."""
    return shard(shard(x, over_frame=1).transpose(0, 3, 1, 2, 4), over_frame=1)


def to_heads(x: Array) -> Array:
    """(b, f, n, h, d) with frames sharded to (b, g, f * n, h / g, d) with groups of heads sharded.

    For attention over all positions of a clip: every device sees them all, of its own heads. There
    are as many groups as devices along "frame", or one where they do not divide the heads, which
    every device then computes.
    """
    b, f, n, h, d = x.shape
    groups = _ways(h)
    x = shard(x, over_frame=1).reshape(b, f, n, groups, h // groups, d)
    x = shard(x.transpose(0, 3, 1, 2, 4, 5), over_frame=1)
    return x.reshape(b, groups, f * n, h // groups, d)


def from_heads(x: Array, *, f: int) -> Array:
    """Back again."""
    b, groups, length, h, d = x.shape
    x = shard(x, over_frame=1).reshape(b, groups, f, length // f, h, d)
    x = shard(x.transpose(0, 2, 3, 1, 4, 5), over_frame=1)
    return x.reshape(b, f, length // f, groups * h, d)


def side_by_side(x: Array, *given: Array) -> tuple[Array, ...]:
    """(b, f, n, h, d) with frames sharded to (b, g, f / g * n, h, d), one g a device, and `given`,
    (b, k, h, d), once for each g: for attention from every position to what all frames share."""
    b, f, n, h, d = x.shape
    groups = _ways(f)
    x = shard(x, over_frame=1).reshape(b, groups, f // groups * n, h, d)
    copies = (jnp.broadcast_to(y[:, None], (b, groups, *y.shape[1:])) for y in given)
    return tuple(shard(y, over_frame=1) for y in (x, *copies))


def _ways(length: int) -> int:
    """How many devices along "frame" share so many; 1 where they do not divide them."""
    ways = jax.sharding.get_abstract_mesh().shape.get("frame", 1)
    return ways if length % ways == 0 else 1
