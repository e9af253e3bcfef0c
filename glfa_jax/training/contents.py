"""What is kept beside the arrays of a checkpoint: names, shapes, checksums, versions."""

import importlib.metadata
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from glfa_jax.errors import TrainingError

_LIBRARIES = ("glfa_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain")


def named(tree: Any) -> dict[str, Any]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}


def described(tree: Any) -> dict[str, dict]:
    return {
        name: {"shape": list(x.shape), "dtype": str(x.dtype)} for name, x in named(tree).items()
    }


@jax.jit
def _checksum(x: jax.Array) -> jax.Array:
    # Integer addition wraps and commutes: the sum is the same however the array is sharded.
    bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}"))
    return jnp.sum(bits.astype(jnp.uint32), dtype=jnp.uint32)


def checksums(tree: Any) -> dict[str, int]:
    sums = {}
    for name, x in named(tree).items():
        sums[name] = _checksum(x)
        # On CPU devices, many small programs in flight can keep each other's sums over devices
        # from meeting, for ever.
        if jax.default_backend() == "cpu":
            sums[name].block_until_ready()
    return {name: int(value) for name, value in jax.device_get(sums).items()}


def validate_names(tree: Any) -> None:
    """The storage layer joins names with dots, so a.b/c and a/b.c would be one array there."""
    counts = Counter(name.replace("/", ".") for name in named(tree))
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise TrainingError(f"parameters that a checkpoint cannot tell apart: {', '.join(twice)}")


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in _LIBRARIES}


def warn(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def warn_of_versions(folder: Path, theirs: dict[str, str]) -> None:
    ours = versions()
    changed = [
        f"{key} {theirs.get(key)} -> {value}"
        for key, value in ours.items()
        if theirs.get(key) != value
    ]
    if changed:
        warn(
            f"{folder}: written with other versions ({', '.join(changed)}); "
            "the continuation may differ in the last digits"
        )


def short(error: Exception) -> str:
    text = " ".join(str(error).split())
    if len(text) > 300:  # the storage layer tells every path on the way to the reason
        text = f"{text[:100]} ... {text[-200:]}"
    return f"{type(error).__name__}: {text}"


def differences(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], *, absent: str | None = None
) -> list[str]:
    """Every key on which two mappings differ, as `key: ours | theirs`."""
    return [
        f"{key}: {ours.get(key, absent)} | {theirs.get(key, absent)}"
        for key in {**ours, **theirs}
        if ours.get(key) != theirs.get(key)
    ]
