"""Model folders as diffusers and transformers lay them out: safetensors files beside a config.json.

Reading maps the files into memory, so tensors cost nothing until they are used. PyTorch's own
pickled formats are not read.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from glfa_jax.errors import InputError

_STEMS = ("model", "diffusion_pytorch_model")
_CONFIG = "config.json"
# What transformers demands of a file that it is to load.
PYTORCH_METADATA = {"format": "pt"}
_DTYPES = {
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


class DirectoryError(InputError):
    """A model folder cannot be read; the message names the file and what is wrong with it."""


def read_config(folder: str | Path) -> dict[str, Any]:
    """The folder's config.json."""
    return read_json(Path(folder) / _CONFIG)


def read_tensors(folder: str | Path, *, variant: str | None = None) -> dict[str, np.ndarray]:
    """All tensors of a folder by name, from one file or from the shards that an index names.

    `variant`: "fp16" reads `model.fp16.safetensors` and the like.
    """
    folder = Path(folder)
    infix = "" if variant is None else f".{variant}"
    single = [folder / f"{stem}{infix}.safetensors" for stem in _STEMS]
    index = [folder / f"{stem}.safetensors.index{infix}.json" for stem in _STEMS]
    found = [path for path in (*single, *index) if path.is_file()]
    if len(found) != 1:
        state = "holds " + " and ".join(p.name for p in found) if found else "holds no weights"
        names = ", ".join(path.name for path in (*single, *index))
        raise DirectoryError(f"{folder}: {state}, must hold exactly one of {names}")
    if found[0] in single:
        return read_file(found[0])

    places = read_json(found[0]).get("weight_map")
    if not isinstance(places, dict):
        raise DirectoryError(f"{found[0]}: has no weight_map")
    shards = sorted(set(places.values()))
    missing = [name for name in shards if not (folder / name).is_file()]
    if missing:
        raise DirectoryError(f"{folder}: {found[0].name} names missing files: {', '.join(missing)}")
    tensors: dict[str, np.ndarray] = {}
    for shard in shards:
        held = read_file(folder / shard)
        promised = {name for name, place in places.items() if place == shard}
        if promised != held.keys():
            raise DirectoryError(
                f"{folder / shard}: differs from {found[0].name} in tensors "
                f"{', '.join(sorted(promised ^ held.keys()))}"
            )
        tensors |= held
    return tensors


def write_tensors(
    folder: str | Path,
    tensors: Mapping[str, np.ndarray],
    *,
    config: Mapping[str, Any],
    filename: str,
    metadata: Mapping[str, str] = PYTORCH_METADATA,
) -> None:
    """Writes one safetensors file and config.json, each aside first and then renamed."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # safetensors writes a transposed view's memory as it lies.
    tensors = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    weights, settings = (folder / f".{name}.partial" for name in (filename, _CONFIG))
    try:
        save_file(tensors, weights, metadata=dict(metadata))
        settings.write_text(json.dumps(dict(config), indent=2, sort_keys=True) + "\n")
        os.replace(weights, folder / filename)
        os.replace(settings, folder / _CONFIG)
    finally:
        weights.unlink(missing_ok=True)
        settings.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DirectoryError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise DirectoryError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(content, dict):
        raise DirectoryError(f"{path}: must hold a JSON object")
    return content


def read_file(path: Path) -> dict[str, np.ndarray]:
    """Views of the mapped file. Writing to one changes memory only."""
    try:
        with safe_open(path, framework="numpy"):
            pass  # checks that the header fits the file
    except (OSError, SafetensorError) as error:
        raise DirectoryError(f"{path}: truncated or no safetensors file ({error})") from None
    content = np.memmap(path, np.uint8, mode="c").view(np.ndarray)
    start = 8 + int(content[:8].view("<u8")[0])
    header = json.loads(content[8:start].tobytes())
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] not in _DTYPES:
            raise DirectoryError(f"{path}: {name} has the unsupported dtype {entry['dtype']}")
        dtype = np.dtype(_DTYPES[entry["dtype"]])
        count, offset = math.prod(entry["shape"]), start + entry["data_offsets"][0]
        flat = np.frombuffer(content.data, dtype, count, offset)
        tensors[name] = flat.reshape(entry["shape"])
    return tensors
