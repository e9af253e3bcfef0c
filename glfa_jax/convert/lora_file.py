"""Files of LoRA weights as diffusers and PEFT save them."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from safetensors import safe_open
from safetensors.numpy import save_file

from glfa_jax.convert.directory import PYTORCH_METADATA, DirectoryError, read_file, read_json
from glfa_jax.convert.lora import Lora, adapter_config, export_lora, import_lora
from glfa_jax.convert.mapping import ConversionError

_DIFFUSERS, _PEFT = "pytorch_lora_weights.safetensors", "adapter_model.safetensors"
_CONFIG = "adapter_config.json"  # beside PEFT's file
_METADATA = "lora_adapter_metadata"  # the same inside of diffusers' file


def load_lora(path: str | Path, *, params: Any) -> Lora:
    """Reads a safetensors file, or a folder in which diffusers or PEFT saved one.

    Raises DirectoryError or ConversionError, one message with all that does not fit.
    """
    path = Path(path)
    if path.is_dir():
        found = [path / name for name in (_DIFFUSERS, _PEFT) if (path / name).is_file()]
        if len(found) != 1:
            raise DirectoryError(f"{path}: must hold one of {_DIFFUSERS} and {_PEFT}")
        path = found[0]
    tensors = read_file(path)
    try:
        return import_lora(tensors, params=params, config=_read_config(path))
    except ConversionError as error:
        raise ConversionError(f"{path}: {error}") from None


def save_lora(folder: str | Path, lora: Lora, *, layout: Literal["diffusers", "peft"]) -> None:
    """Writes what `load_lora` reads back, and `load_lora_weights` or PeftModel.from_pretrained.

    diffusers up to 0.42 loads no LoRA into a UNet3DConditionModel: PEFT does.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = adapter_config(lora)
    if layout == "peft":
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        _replace(folder / _CONFIG, lambda path: path.write_text(text))
        path, prefix, metadata = folder / _PEFT, "base_model.model.", PYTORCH_METADATA
    else:
        said = json.dumps({f"unet.{key}": value for key, value in config.items()}, sort_keys=True)
        path, prefix, metadata = folder / _DIFFUSERS, "unet.", PYTORCH_METADATA | {_METADATA: said}
    tensors = export_lora(lora, prefix=prefix)
    _replace(path, lambda path: save_file(tensors, path, metadata=metadata))


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes aside, then renames."""
    aside = path.with_name(f".{path.name}.partial")
    try:
        write(aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _read_config(path: Path) -> dict[str, Any] | None:
    """What is said of the adapter beside its file or in it."""
    beside = path.with_name(_CONFIG)
    if path.name == _PEFT and beside.is_file():
        return read_json(beside)
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
    try:
        if _METADATA not in metadata:
            plain = ("r", "lora_alpha")  # some scripts write these two alone
            return {key: json.loads(metadata[key]) for key in plain if key in metadata} or None
        config = json.loads(metadata[_METADATA])
    except ValueError as error:
        raise DirectoryError(f"{path}: metadata of the adapter is no JSON ({error})") from None
    if not isinstance(config, dict):
        raise DirectoryError(f"{path}: metadata {_METADATA} must hold a JSON object")
    return config
