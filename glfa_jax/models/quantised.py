"""Frozen kernels kept in 8 or 4 bits, as QLoRA keeps them (arXiv 2305.14314).

Kernels that lie `stacked` are rounded block by block, through qwix; a loop over the blocks makes
each whole again where it is read, so that no more than one is whole at a time. Gradients pass
through them and reach none of them.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.struct import PyTreeNode, field
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, UInt4, UInt8

from glfa_jax.errors import InputError
from glfa_jax.models.stacked import ALL, Stack

# Finds, in '/'-joined paths, the kernels that are rounded: those of stacked blocks.
KERNELS = rf"\.\{ALL}/(.*/)?kernel$"

# Inputs of a kernel that share a scale, where their number allows; QLoRA's.
_TILE = 64


class Quantised(PyTreeNode):
    """A kernel in few bits, or several along a first axis.

    array: qwix's; its values, where they have 4 bits, are two to a byte along the last axis.
    outputs: of the kernel.
    """

    array: Any
    outputs: int = field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.array.shape[:-1], self.outputs)

    def whole(self) -> Float[Array, "*k"]:
        """In float32, as of its scales."""
        array = self.array
        if array.qtype != "nf4":
            return _qwix().dequantize(array)
        values = _in_table(_apart(array.qvalue)[..., : self.outputs])
        tile = values.shape[-2] // array.scale.shape[-2]
        return values * jnp.repeat(array.scale, tile, axis=-2)


def quantised(params: dict, *, kind: str) -> dict:
    """The same parameters, stacked kernels of (*taps, in, out) as `Quantised`.

    kind: "int8", 256 even steps, a scale for every output; "nf4", 16 values at quantiles of a
    normal distribution, a scale for every output and 64 inputs, or fewer where 64 do not divide
    them. Scales are in float32. Leaves are as `stacked` has them, a `Stack` or abstract where these
    are. Raises InputError where qwix is not installed.
    """
    rounded = jax.jit(partial(_rounded, kind=kind))
    flat: dict[tuple[str, ...], Any] = flatten_dict(params)
    return unflatten_dict(
        {
            path: _of_blocks(leaf, rounded) if re.search(KERNELS, "/".join(path)) else leaf
            for path, leaf in flat.items()
        }
    )


def whole(params: dict) -> dict:
    """The same parameters, none of them `Quantised`."""
    return jax.tree.map(
        lambda x: x.whole() if isinstance(x, Quantised) else x,
        params,
        is_leaf=lambda x: isinstance(x, Quantised),
    )


def _of_blocks(
    kernels: Stack | jax.ShapeDtypeStruct, rounded: Callable[[Any], Quantised]
) -> Quantised:
    """One after the other, since the blocks' together may be larger than what is free."""
    if isinstance(kernels, jax.ShapeDtypeStruct):
        return jax.eval_shape(jax.vmap(rounded), kernels)
    each = [jax.device_get(rounded(np.asarray(part))) for part in kernels.parts]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *each)


def _rounded(kernel: Float[Array, "*taps c d"], *, kind: str) -> Quantised:
    inputs, outputs = kernel.ndim - 2, kernel.ndim - 1
    tiles = {inputs: _tile_of(kernel.shape[inputs])} if kind == "nf4" else {}
    array = _qwix().quantize(
        kernel.astype(np.float32), kind, channelwise_axes=(outputs,), tiled_axes=tiles
    )
    if kind == "nf4":
        array = replace(array, qvalue=_together(array.qvalue))
    return Quantised(array, kernel.shape[outputs])


# jax has integers of 4 bits, but rejects them as arguments of a compiled function ("layouts that
# disagree"), and on a CPU each takes a byte. A byte holds one of each half of the outputs: a TPU
# pads neighbours that are set apart, a last axis of two, to 128.


def _together(values: UInt4[Array, "*k d"]) -> UInt8[Array, "*k h"]:
    """Two to a byte, the first half of the last axis in the lower bits."""
    odd = values.shape[-1] % 2
    even = jnp.pad(values.astype(np.uint8), [(0, 0)] * (values.ndim - 1) + [(0, odd)])
    first, second = jnp.split(even, 2, axis=-1)
    return first | second << 4


def _apart(pairs: UInt8[Array, "*k h"]) -> UInt8[Array, "*k d"]:
    return jnp.concatenate([pairs & 15, pairs >> 4], axis=-1)


def _in_table(places: UInt8[Array, "*k"]) -> Float[Array, "*k"]:
    """The values at these places of NF4's table.

    Chosen bit by bit, which fuses with what reads them: looked up one by one, as qwix does, they
    cost a TPU more traffic than the rest of a step.
    """
    table = _qwix().QArray(np.arange(16, dtype=np.uint8), np.ones(16, np.float32), qtype="nf4")
    left = list(_qwix().dequantize(table))
    while len(left) > 1:
        is_odd = places & 1 == 1
        left = [
            jnp.where(is_odd, high, low) for low, high in zip(left[::2], left[1::2], strict=True)
        ]
        places = places >> 1
    return left[0]


def _tile_of(inputs: int) -> int:
    return max(size for size in range(1, _TILE + 1) if inputs % size == 0)


def _qwix() -> Any:
    try:
        import qwix
    except ImportError:
        raise InputError(
            "cotrain.frozen_kernels needs qwix; pip install 'glfa_jax[quantised]' installs it"
        ) from None
    return qwix
