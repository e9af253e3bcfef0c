"""Writes safetensors files tensor after tensor: no more than one tensor is copied at a time."""

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from glfa_jax.errors import InputError

# The names that the format gives to dtypes.
DTYPES = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "I16": np.int16,
    "U16": np.uint16,
    "I32": np.int32,
    "U32": np.uint32,
    "I64": np.int64,
    "U64": np.uint64,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F32": np.float32,
    "F64": np.float64,
}
_FLOATING = {np.dtype(DTYPES[name]) for name in ("F16", "BF16", "F32", "F64")}
_NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
# Tensors are cast and written in pieces of this many elements.
_PIECE = 4 * 2**20

# From a tensor and its name to what is written in its place, of the same shape.
Change = Callable[[str, np.ndarray], np.ndarray]


def unchanged(name: str, tensor: np.ndarray) -> np.ndarray:
    return tensor


def is_floating(dtype: np.dtype) -> bool:
    """Whether it is one of the types that parameters are stored as."""
    return np.dtype(dtype) in _FLOATING


def stored_dtype(tensor: np.ndarray, dtype: Any) -> np.dtype:
    """What a tensor is written as: floating-point tensors as `dtype` unless that is None."""
    return np.dtype(dtype) if dtype is not None and is_floating(tensor.dtype) else tensor.dtype


def bytes_of(size: str) -> int:
    """From "5GB", "200MiB" or a number of bytes."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d+)?)\s*([KMG]i?B)?", size.strip(), re.IGNORECASE)
    count = int(float(match[1]) * _UNITS[(match[2] or "").upper()]) if match else 0
    if count < 1:
        raise InputError(f"shard size {size!r}: must be a size such as 5GB, 500MB or 200MiB")
    return count


def write_safetensors(
    path: Path,
    tensors: Mapping[str, np.ndarray],
    *,
    metadata: Mapping[str, str],
    dtype: Any = None,
    change: Change = unchanged,
    done: Callable[[np.ndarray], None] = lambda tensor: None,
) -> None:
    """Writes the header, then each tensor, cast to `dtype` or else to its own.

    `change` is applied to each before it is cast; `done` is called with it once it is written.
    Parameters that are still in their files are read one at a time.
    """
    kinds = {name: stored_dtype(tensor, dtype) for name, tensor in tensors.items()}
    strangers = sorted({str(kind) for kind in kinds.values() if kind not in _NAMES})
    if strangers:
        raise InputError(f"{path.name}: safetensors files hold no {', '.join(strangers)}")
    # Wide elements first: so each lies at a multiple of its width.
    order = sorted(tensors, key=lambda name: (-kinds[name].itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name in order:
        start, end = end, end + math.prod(tensors[name].shape) * kinds[name].itemsize
        header[name] = {
            "dtype": _NAMES[kinds[name]],
            "shape": list(tensors[name].shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            _write(file, np.asarray(change(name, tensors[name])), kinds[name])
            done(tensors[name])


def _write(file: BinaryIO, tensor: np.ndarray, dtype: np.dtype) -> None:
    flat = tensor.reshape(-1)
    for start in range(0, flat.size, _PIECE):
        piece = np.ascontiguousarray(flat[start : start + _PIECE], dtype)
        file.write(piece.view(np.uint8).data)


def shards(
    tensors: Mapping[str, np.ndarray], *, filename: str, size: int | None, dtype: Any = None
) -> dict[str, dict[str, np.ndarray]]:
    """Tensors by file, at most `size` bytes in each unless one tensor is larger.

    One file keeps its name; several are numbered as diffusers and transformers do.
    """
    parts: list[dict[str, np.ndarray]] = [{}]
    filled = 0
    for name, tensor in tensors.items():
        weight = tensor.size * stored_dtype(tensor, dtype).itemsize
        if size is not None and parts[-1] and filled + weight > size:
            parts.append({})
            filled = 0
        parts[-1][name] = tensor
        filled += weight
    if len(parts) == 1:
        return {filename: parts[0]}
    stem = filename.removesuffix(".safetensors")
    return {
        f"{stem}-{i:05}-of-{len(parts):05}.safetensors": part for i, part in enumerate(parts, 1)
    }
