"""The passes of the local layer as operations that devices can share and `vmap` can see through.

Every implementation is a module of three functions of whole arrays: `forward`, `input_gradient`
and `weight_gradient`. Left to itself, the partitioner would gather all frames on every device, for
the loops walk over frames, and a device kernel it cannot cut at all. It is told here that frames
are independent: every device keeps its own and all the weights.
"""

from collections.abc import Callable
from functools import cache, partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

# n frames of h x w pixels, k taps; the arguments in the functions' order.
_AXES = {
    "forward": "n h w, k h w -> n h w, h w",
    "input_gradient": "n h w, k h w, h w, n h w -> n h w",
    "weight_gradient": "n h w, k h w, n h w, h w, n h w -> k h w",
}


@cache
def operation(kernels: ModuleType, name: str, kernel_size: int) -> Callable[..., Any]:
    """One function of an implementation, ready for `jit` over several devices and for `vmap`."""
    run = partial(getattr(kernels, name), kernel_size=kernel_size)
    arguments, results = (side.split(", ") for side in _AXES[name].split(" -> "))
    mapped = custom_vmap(_partitioned(run, arguments=arguments, results=results, rule=_AXES[name]))

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


def _partitioned(
    run: Callable[..., Any], *, arguments: list[str], results: list[str], rule: str
) -> Callable[..., Any]:
    """Frames stay where they are; everything else is on every device."""

    def shardings(mesh: Mesh, given: Any) -> tuple[Any, list[NamedSharding], list[NamedSharding]]:
        """What the frames are spread over; where arguments and results lie."""
        over = (*given[0].sharding.spec, None)[0]
        place = {True: NamedSharding(mesh, P(over)), False: NamedSharding(mesh, P())}
        here, there = ([place[axes.startswith("n")] for axes in s] for s in (arguments, results))
        return over, here, there

    def one_or_all(places: list[NamedSharding]) -> Any:
        return places[0] if len(places) == 1 else tuple(places)

    def infer(mesh: Mesh, given: Any, result: Any) -> Any:
        return one_or_all(shardings(mesh, given)[2])

    def partition(mesh: Mesh, given: Any, result: Any) -> tuple[Mesh, Callable, Any, Any]:
        over, where_from, where_to = shardings(mesh, given)

        def lower(*values: jax.Array) -> Any:
            found = run(*values)
            summed = over is not None and not any(axes.startswith("n") for axes in results)
            return lax.psum(found, over) if summed else found

        return mesh, lower, one_or_all(where_to), tuple(where_from)

    call = custom_partitioning(lambda *values: run(*values))
    call.def_partition(partition=partition, infer_sharding_from_operands=infer, sharding_rule=rule)
    return call
