"""Low-rank adaptation as a transform of parameter trees: the models know nothing of it.

A LoRA tree mirrors the adapted part of the parameters; in the place of a kernel stand `down` and
`up`, whose product is added to it. Train the LoRA tree alone and apply the model to
`merge(params, ...)`; the merged tree is also what is exported.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Key


def init_lora(params: Any, *, patterns: Sequence[str], rank: int, key: Key[Array, ""]) -> dict:
    """A LoRA tree for every parameter whose '/'-joined path a pattern is found in.

    Merging it as it is changes nothing: `up` is zero. A kernel (*taps, in, out) gets `down`
    (*taps, in, rank), normal with variance 1/fan-in, and `up` (rank, out), in float32. Raises
    ValueError for a pattern that finds nothing or a parameter with fewer than two axes.
    """
    if rank < 1:
        raise ValueError(f"rank: must be at least 1, got {rank}")
    paths: dict[str, Any] = {"/".join(path): leaf for path, leaf in flatten_dict(params).items()}
    idle = [pattern for pattern in patterns if not any(re.search(pattern, p) for p in paths)]
    if idle or not patterns:
        raise ValueError(f"patterns: {idle or list(patterns)} match no parameter")
    chosen = [p for p in sorted(paths) if any(re.search(pattern, p) for pattern in patterns)]
    flat = {p for p in chosen if len(paths[p].shape) < 2}
    if flat:
        raise ValueError(f"patterns: {sorted(flat)} are no kernels, which have two axes or more")

    lora: dict[tuple[str, ...], Array] = {}
    for path, subkey in zip(chosen, jax.random.split(key, len(chosen)), strict=True):
        *inner, out = paths[path].shape
        down = jax.nn.initializers.lecun_normal()(subkey, (*inner, rank), jnp.float32)
        lora[(*path.split("/"), "down")] = down
        lora[(*path.split("/"), "up")] = jnp.zeros((rank, out), jnp.float32)
    return unflatten_dict(lora)


def merge(params: Any, lora: Any, *, scale: float) -> dict:
    """`params` with `scale * down @ up` added to every adapted kernel, in the kernel's dtype.

    Differentiable in both trees. Raises ValueError where the LoRA tree fits no parameter.
    """
    merged: dict[tuple[str, ...], Any] = flatten_dict(params)
    pairs: dict[tuple[str, ...], Any] = flatten_dict(lora)
    for path in dict.fromkeys(path[:-1] for path in pairs):  # in the same order in every process
        if path not in merged:
            raise ValueError(f"lora: {'/'.join(path)} is no parameter of this model")
        kernel = merged[path]
        update = scale * (pairs[(*path, "down")] @ pairs[(*path, "up")])
        if update.shape != kernel.shape:
            raise ValueError(
                f"lora: {'/'.join(path)} makes {update.shape}, the parameter is {kernel.shape}"
            )
        merged[path] = (jnp.asarray(kernel) + update).astype(kernel.dtype)
    return unflatten_dict(merged)
