"""How arrays lie in Zarr v3, as TensorStore is told."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
PACKED = {"name": "zstd", "configuration": {"level": 3, "checksum": True}}
PLAIN = {"name": "crc32c"}  # a checksum and no more


def array_spec(
    path: Path,
    *,
    dtype: str,
    shape: Sequence[int],
    axes: Sequence[str],
    fill: Any,
    shard: int | None,
    codec: Mapping[str, Any] = PACKED,
    attributes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """An array of samples, one a chunk of which `shard` share a file, or without it one chunk."""
    codecs = [_LITTLE, codec]
    chunk = [max(length, 1) for length in shape]
    if shard is not None:
        chunk = [shard, *shape[1:]]
        sharding = {
            "chunk_shape": [1, *shape[1:]],
            "codecs": codecs,
            "index_codecs": [_LITTLE, PLAIN],
            "index_location": "end",
        }
        codecs = [{"name": "sharding_indexed", "configuration": sharding}]
    return {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str(path)},
        "metadata": {
            "shape": list(shape),
            "data_type": dtype,
            "dimension_names": list(axes),
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
            "codecs": codecs,
            "fill_value": fill,
            **({"attributes": dict(attributes)} if attributes else {}),
        },
    }
