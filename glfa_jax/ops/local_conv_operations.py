"""The passes of the local layer as operations that devices can share and `vmap` can see through.

Every implementation is a module of three functions of whole arrays: `forward`, `input_gradient`
and `weight_gradient`. Left to itself, the partitioner would gather all frames on every device, for
the loops walk over frames, and a device kernel it cannot cut at all. So where a mesh is set
(`jax.set_mesh`), frames are sharded over all its axes: every device computes its own, with all
the weights. (`custom_partitioning` would need no mesh, but does not compile for several TPUs.)
"""

import math
from collections.abc import Callable
from functools import cache, partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.sharding import PartitionSpec as P

from glfa_jax.ops.devices import shared_axes

# n frames of h x w pixels, k taps; the arguments in the functions' order.
_AXES = {
    "forward": "n h w, k h w -> n h w, h w",
    "input_gradient": "n h w, k h w -> n h w",
    "weight_gradient": "n h w, k h w, n h w, n h w -> k h w",
}


@cache
def operation(kernels: ModuleType, name: str, kernel_size: int) -> Callable[..., Any]:
    """One function of an implementation, ready for several devices and for `vmap`."""
    run = partial(getattr(kernels, name), kernel_size=kernel_size)
    arguments, results = (side.split(", ") for side in _AXES[name].split(" -> "))
    mapped = custom_vmap(_over_devices(run, arguments=arguments, results=results))

    @mapped.def_vmap
    def over(axis_size: int, batched: list[bool], *values: jax.Array) -> tuple[Any, Any]:
        frames = [axes.startswith("n") for axes in arguments]
        if name != "weight_gradient" and batched == frames:
            # The same weights for all: the frames of all at once.
            flat = [
                value.reshape(-1, *value.shape[2:]) if many else value
                for value, many in zip(values, frames, strict=True)
            ]
            found = mapped(*flat)

            def unflatten(x: jax.Array) -> jax.Array:
                return x.reshape(axis_size, -1, *x.shape[1:])

            if name == "forward":
                return (unflatten(found[0]), found[1]), (True, False)
            return unflatten(found), True
        whole = [
            value if many else jnp.broadcast_to(value, (axis_size, *value.shape))
            for value, many in zip(values, batched, strict=True)
        ]
        found = lax.map(lambda one: mapped(*one), whole)
        return found, jax.tree.map(lambda _: True, found)

    return mapped


def _over_devices(
    run: Callable[..., Any], *, arguments: list[str], results: list[str]
) -> Callable[..., Any]:
    """Runs on the frames of each device where a mesh is set, filled up with empty frames so that
    every device has as many."""
    summed = not any(axes.startswith("n") for axes in results)

    def call(*values: jax.Array) -> Any:
        axes = shared_axes()
        if not axes:
            return run(*values)
        free, devices = tuple(axes), math.prod(axes.values())
        frames = len(values[0])
        missing = -frames % devices

        def filled(value: jax.Array, axes: str) -> jax.Array:
            if not missing or not axes.startswith("n"):
                return value
            return jnp.pad(value, [(0, missing)] + [(0, 0)] * (value.ndim - 1))

        def of_one_device(*values: jax.Array) -> Any:
            found = run(*values)
            return lax.psum(found, free) if summed else found

        def specs(several: list[str]) -> list[P]:
            return [P(free) if axes.startswith("n") else P() for axes in several]

        there = specs(results)
        found = jax.shard_map(
            of_one_device,
            in_specs=tuple(specs(arguments)),
            out_specs=tuple(there) if len(there) > 1 else there[0],
            axis_names=set(free),
            check_vma=False,  # the kernels do not say how their results vary
        )(*(filled(*pair) for pair in zip(values, arguments, strict=True)))
        several = found if len(results) > 1 else (found,)
        cut = [
            x[:frames] if a.startswith("n") else x for x, a in zip(several, results, strict=True)
        ]
        return tuple(cut) if len(results) > 1 else cut[0]

    return call
