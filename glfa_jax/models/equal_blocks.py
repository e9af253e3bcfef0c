"""Blocks of equal shape, compiled as one."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from glfa_jax.models.layers import recompute
from glfa_jax.models.mesh_axes import spread
from glfa_jax.models.quantised import whole
from glfa_jax.models.stacked import in_stack


def run_equal(
    blocks: Sequence[nn.Module], x: Float[Array, "*b"], *, remat: bool = False, **options: Any
) -> Float[Array, "*b"]:
    """Applies bound modules that differ in their parameters alone, one after the other.

    Every block keeps its own parameters; they are stacked here and looped over, so that a program
    of 24 blocks takes hardly longer to compile than one of two. Those that are `stacked` already
    are taken as they are; of those that are `quantised`, one block's are whole at a time. With
    `remat` the backward pass recomputes every block from its input. `options` go to every call.
    """
    if not blocks:
        return x
    first = blocks[0]
    if first.is_initializing():  # each makes its own parameters
        for block in blocks:
            x = block(x, **options)
        return x
    params = _stacked(blocks)
    keys = None
    if first.has_rng("dropout"):
        keys = jax.random.split(first.make_rng("dropout"), len(blocks))
    detached = first.clone(parent=None, name=None)

    def body(x: Array, layer: tuple[Any, jax.Array | None]) -> tuple[Array, None]:
        params, key = layer
        rngs = {} if key is None else {"dropout": key}
        out: Any = detached.apply({"params": whole(params)}, spread(x), rngs=rngs, **options)
        return out, None

    if remat:
        # The loop keeps the passes apart already.
        body = jax.checkpoint(body, prevent_cse=False, policy=recompute)
    return jax.lax.scan(body, x, (params, keys))[0]


def _stacked(blocks: Sequence[nn.Module]) -> dict:
    """Parameters of all blocks, one after the other along a first axis.

    Kernels are stacked, and so are their gradients, in the `dtype` that blocks compute in, to which
    each would cast its own.
    """
    first = blocks[0]
    dtype: Any = getattr(first, "dtype", None)

    def stack(path: Any, *leaves: Array) -> Array:
        is_kernel = dtype is not None and path[-1].key == "kernel"
        return jnp.stack([x.astype(dtype) for x in leaves] if is_kernel else leaves)

    own = [block.variables.get("params", {}) for block in blocks]
    params = flatten_dict(jax.tree_util.tree_map_with_path(stack, *own))
    (name,), _ = in_stack((str(first.name),))
    around: Any = first.parent
    kept: dict = around.variables["params"].get(name, {})
    return unflatten_dict(params | flatten_dict(kept))
