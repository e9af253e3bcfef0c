"""Low-rank adaptation as a transform of parameter trees: the models know nothing of it.

A LoRA tree mirrors the adapted part of the parameters; in the place of a kernel stand `down` and
`up`, whose product is added to it. Train the LoRA tree alone and apply the model to
`merge(params, ...)`, which is also what is exported, or, where its layers are `layers.Dense`, to
`beside(params, ...)`, which saves time and memory.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Key

from glfa_jax.models.layers import DOWN, UP
from glfa_jax.models.stacked import in_stack

Path = tuple[str, ...]


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


def merge(params: dict, lora: dict, *, scale: float) -> dict:
    """`params` with `scale * down @ up` added to every adapted kernel, in the kernel's dtype.

    Differentiable in both trees. Raises ValueError where the LoRA tree fits no parameter.
    """
    merged: dict[Path, Any] = flatten_dict(params)
    for path, down, up in _pairs(merged, lora):
        merged[path] = _sum(merged[path], down, up, scale)
    return unflatten_dict(merged)


def beside(params: dict, lora: dict, *, scale: float) -> dict:
    """`params` with the updates laid beside the kernels, which `layers.Dense` reads there.

    The same model as of `merge`, and the same gradients. But no kernel is summed up, and there is
    no gradient of a whole one, which with many positions costs as much as the forward pass. Nor is
    an update rounded away where kernels have 16 bits. Kernels of convolutions, which have more than
    two axes, are merged; others may be `stacked`. Raises ValueError as `merge` does.
    """
    both: dict[Path, Any] = flatten_dict(params)
    for path, down, up in _pairs(both, lora):
        if down.ndim > 2:
            both[path] = _sum(both[path], down, up, scale)
        else:
            both[(*path[:-1], path[-1] + DOWN)] = down
            both[(*path[:-1], path[-1] + UP)] = scale * up
    return unflatten_dict(both)


def _pairs(params: dict[Path, Any], lora: dict) -> Iterator[tuple[Path, Array, Array]]:
    """Every adapted kernel's path, down and up; in the same order in every process."""
    parts: dict[Path, Any] = flatten_dict(lora)
    for path in dict.fromkeys(path[:-1] for path in parts):
        stack, _ = in_stack(path)
        if path in params:
            wanted = params[path].shape
        elif stack in params:
            wanted = params[stack].shape[1:]
        else:
            raise ValueError(f"lora: {'/'.join(path)} is no parameter of this model")
        down, up = parts[(*path, "down")], parts[(*path, "up")]
        shape = (*down.shape[:-1], up.shape[-1])
        if shape != wanted:
            raise ValueError(f"lora: {'/'.join(path)} makes {shape}, the parameter is {wanted}")
        yield path, down, up


def _sum(kernel: Any, down: Array, up: Array, scale: float) -> Array:
    return (jnp.asarray(kernel) + scale * (down @ up)).astype(kernel.dtype)
