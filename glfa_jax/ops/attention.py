"""Scaled dot-product attention by the implementation that suits device, dtype and shapes.

Fused kernels hold no scores, which at 2880 positions are most of a layer's memory and traffic; on
few positions they cost more than they save (benchmarks/attention.py).
"""

import math
import warnings
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float

from glfa_jax.ops import attention_einsum, attention_gpu
from glfa_jax.ops.devices import platform, shared_axes

Implementation = Literal["auto", "einsum", "fused", "cudnn", "tpu"]

# Shortest sequences: that fill a tile of a kernel, and from which `auto` takes one.
TILE, LONG = 128, 512

# `with using("einsum"):` chooses for all attention that is traced inside. A context of JAX's own,
# so that a program compiled under one choice does not serve another.
using = jax.make_user_context("auto")


def attention(
    query: Float[Array, "*b q h d"],
    key: Float[Array, "*b k h d"],
    value: Float[Array, "*b k h d"],
    *,
    mask: Bool[Array, "..."] | None = None,
    dropout: Callable[[Array], Array] | None = None,
    implementation: Implementation | None = None,
) -> Float[Array, "*b q h d"]:
    """softmax(query · key / sqrt(d)) · value; the softmax in float32 whatever the inputs are.

    mask: broadcasts to (*b, h, q, k), true where a key may be seen. dropout: applied to the
        attention weights. With either, scores are needed, and "auto" and "fused" are "einsum".
    implementation: "einsum"; "cudnn" or "tpu", a kernel by name; "fused", the kernel of the devices
        that are compiled for, where it runs and a sequence fills a tile (128); "auto", that from
        512 positions. As `using` says when left out: "auto" by itself.

    On a mesh (`jax.set_mesh`) a kernel runs on each device's own sequences: the first axis lies
    over all mesh axes but "frame", the second over that, as far as they divide. Raises ValueError
    for a mask or dropout with a kernel by name.
    """
    chosen = using.value if implementation is None else implementation
    plain = mask is None and dropout is None
    if chosen in ("auto", "fused"):
        kernel = _kernel(query, key, shortest=LONG if chosen == "auto" else TILE) if plain else None
        if chosen == "fused" and platform() == "cpu":
            warnings.warn("attention: CPUs have no fused kernel, einsum is used", stacklevel=2)
    elif chosen == "einsum":
        kernel = None
    elif not plain:
        raise ValueError(f"implementation: {chosen} takes no mask and no dropout, must be einsum")
    else:
        kernel = _module(chosen)
    if kernel is not None:
        return _over_devices(kernel, query, key, value)
    if plain and platform() == "cpu":
        return _without_lone(query, key, value)
    if dropout is None:
        return attention_einsum.attend(query, key, value, mask)
    scores = attention_einsum.scores_of(query, key, mask)
    weights = dropout(jax.nn.softmax(scores, axis=-1).astype(value.dtype))
    return jnp.einsum("...hqk,...khd->...qhd", weights, value)


def _without_lone(query: Array, key: Array, value: Array) -> Array:
    """By einsum, without leading axes of length 1, such as that of the devices along "frame" where
    there is one: with them XLA:CPU (jaxlib 0.10) takes almost twice as long."""
    given = (query, key, value)
    lone = [i for i in range(query.ndim - 3) if all(x.shape[i] == 1 for x in given)]
    y = attention_einsum.attend(*(jnp.squeeze(x, lone) for x in given), None)
    return jnp.expand_dims(y, lone)


def _module(name: str) -> ModuleType:
    """A kernel, imported only where it is wanted."""
    if name == "cudnn":
        return attention_gpu
    if name == "tpu":
        from glfa_jax.ops import attention_tpu

        return attention_tpu
    raise ValueError(f"implementation: {name!r}, must be auto, einsum, fused, cudnn or tpu")


def _kernel(query: Array, key: Array, *, shortest: int) -> ModuleType | None:
    """That of the devices in use, where it computes this and both sequences are long enough."""
    device = platform()
    name = {"gpu": "cudnn", "tpu": "tpu"}.get(device)
    if name is None or min(query.shape[-3], key.shape[-3]) < shortest:
        return None
    kernel = _module(name)
    # What is compiled for devices that are not here cannot be tried.
    tried = device != jax.default_backend() or _runs(kernel)
    return kernel if kernel.takes(query) and tried else None


@cache
def _runs(kernel: ModuleType) -> bool:
    """Whether a kernel compiles here and gives, on a small example, what einsum gives."""
    with jax.ensure_compile_time_eval():
        given = jax.random.normal(jax.random.key(0), (4, 1, 2 * TILE, 2, 64), jnp.bfloat16)

        def results(attend: Callable[..., Array]) -> tuple[Array, ...]:
            y, pull = jax.vjp(attend, *given[:3])
            return y, *pull(given[3])

        try:
            found = results(kernel.attend)
        except Exception as error:  # the compilers' are of many kinds
            warnings.warn(f"attention: the fused kernel does not run here: {error}", stacklevel=2)
            return False
        wanted = results(lambda *x: attention_einsum.attend(*x, None))
        right = all(
            bool(jnp.allclose(ours, theirs, atol=0.1))
            for ours, theirs in zip(found, wanted, strict=True)
        )
    if not right:
        warnings.warn("attention: the fused kernel computes wrongly here: not used", stacklevel=2)
    return right


def _over_devices(kernel: ModuleType, query: Array, key: Array, value: Array) -> Array:
    """Every device on its own sequences: a kernel cannot be partitioned by the compiler."""
    axes = shared_axes()
    if not axes:
        return kernel.attend(query, key, value)
    lying = _lying(axes, query.shape[:-3])
    return jax.shard_map(
        kernel.attend,
        in_specs=(lying,) * 3,
        out_specs=lying,
        axis_names=set(axes),
        check_vma=False,  # the kernels do not say how their results vary
    )(query, key, value)


def _lying(axes: dict[str, int], sides: tuple[int, ...]) -> P:
    """As models lay activations (`models.mesh_axes.shard`), as far as mesh axes divide."""

    def along(names: tuple[str, ...], length: int) -> tuple[str, ...] | None:
        return None if length % math.prod(axes[name] for name in names) else names

    frame = tuple(name for name in axes if name == "frame")
    rows = tuple(name for name in axes if name != "frame")
    if len(sides) < 2:
        return P(*(along(tuple(axes), side) or along(rows, side) for side in sides))
    return P(along(rows, sides[0]), along(frame, sides[1]))
