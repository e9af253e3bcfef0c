"""Files of LoRA weights as diffusers, PEFT and kohya's scripts save them."""

import json
from pathlib import Path
from typing import Any, Literal

from safetensors import safe_open

from glfa_jax import files
from glfa_jax.convert.adapted import ADAPTED
from glfa_jax.convert.directory import (
    PYTORCH_METADATA,
    DirectoryError,
    new_folder,
    read_config,
    read_file,
    require_new_folder,
    seal,
)
from glfa_jax.convert.lora import Lora, adapter_config, export_lora, import_lora
from glfa_jax.convert.mapping import ConversionError
from glfa_jax.convert.pretrained import described
from glfa_jax.convert.sources import guess_kind, locate
from glfa_jax.convert.stream import write_safetensors

_DIFFUSERS, _PEFT = "pytorch_lora_weights", "adapter_model"
_CONFIG = "adapter_config.json"  # beside PEFT's file
_METADATA = "lora_adapter_metadata"  # the same inside of diffusers' file

Layout = Literal["peft", "diffusers"]


def load_lora(path: str | Path, *, params: Any, kind: str = "unet3d") -> Lora:
    """Reads a file, or a folder in which diffusers or PEFT saved one; safetensors go first.

    `params`: of the model of `kind` that it adapts, arrays or shapes. Raises DirectoryError or
    ConversionError, one message with all that does not fit.
    """
    path = Path(path)
    if path.is_dir():
        files.verify_checksums(path, error=DirectoryError)
        path = _file_in(path)
    tensors = read_file(path)
    try:
        return import_lora(tensors, params=params, config=_read_config(path), kind=kind)
    except ConversionError as error:
        raise ConversionError(f"{path}: {error}") from None


def save_lora(target: str | Path, lora: Lora, *, layout: Layout) -> None:
    """Writes a new folder, for `load_lora` and PeftModel.from_pretrained or load_lora_weights.

    Tried with diffusers 0.42.1: it loads no LoRA into a UNet3DConditionModel, PEFT does; a Wan
    transformer takes both.
    """
    target, config, part = Path(target), adapter_config(lora), ADAPTED[lora.kind].part
    with new_folder(target) as folder:
        if layout == "peft":
            (folder / _CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
            name, prefix, metadata = _PEFT, "base_model.model.", PYTORCH_METADATA
        else:
            said = {f"{part}.{key}": value for key, value in config.items()}
            metadata = PYTORCH_METADATA | {_METADATA: json.dumps(said, sort_keys=True)}
            name, prefix = _DIFFUSERS, f"{part}."
        tensors = export_lora(lora, prefix=prefix)
        file = folder / f"{name}.safetensors"
        with files.writing(target / file.name):
            write_safetensors(file, tensors, metadata=metadata)
        seal(folder)


def convert_lora(
    source: str | Path,
    target: str | Path,
    *,
    base: str | Path,
    layout: Layout,
    allow_download: bool = False,
) -> Lora:
    """From any layout that is read to one that is written, in float32.

    `base`: the folder of the model that is adapted, of which config.json alone is read.
    """
    require_new_folder(target)
    kind = guess_kind(base)
    if kind not in ADAPTED:
        kind = "unet3d"  # whose configuration says what is wrong
    _, shapes = described(kind, read_config(base), place=base)
    lora = load_lora(locate(source, allow_download=allow_download), params=shapes, kind=kind)
    save_lora(target, lora, layout=layout)
    return lora


def _file_in(folder: Path) -> Path:
    for ending in (".safetensors", ".bin"):
        found = [folder / (stem + ending) for stem in (_DIFFUSERS, _PEFT)]
        found = [path for path in found if path.is_file()]
        if len(found) == 1:
            return found[0]
        if found:
            break
    raise DirectoryError(
        f"{folder}: must hold one of {_DIFFUSERS}.safetensors and {_PEFT}.safetensors (or .bin); "
        "or name the file itself"
    )


def _read_config(path: Path) -> dict[str, Any] | None:
    """What is said of the adapter beside its file or in it."""
    beside = path.with_name(_CONFIG)
    if path.stem == _PEFT and beside.is_file():
        return files.read_object(beside, error=DirectoryError)
    if path.suffix != ".safetensors":
        return None
    with (
        files.reading(path, "safetensors file", error=DirectoryError),
        safe_open(path, framework="numpy") as file,
    ):
        metadata = file.metadata() or {}
    try:
        if _METADATA not in metadata:
            # Some scripts write these two alone.
            plain = {key: metadata[key] for key in ("r", "lora_alpha") if key in metadata}
            return {key: files.parse_json(value) for key, value in plain.items()} or None
        config = files.parse_json(metadata[_METADATA])
    except ValueError as error:
        raise DirectoryError(
            f"{path}: metadata of the adapter is no JSON ({files.reason(error)})"
        ) from None
    if not isinstance(config, dict):
        raise DirectoryError(f"{path}: metadata {_METADATA} must hold a JSON object")
    return config
