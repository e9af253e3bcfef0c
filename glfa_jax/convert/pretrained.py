"""Pretrained models by folder, in the layout that diffusers and transformers load and save."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from glfa_jax.convert import clip, glfa, unet3d, vae, video_mae, vit
from glfa_jax.convert.directory import (
    DirectoryError,
    read_config,
    read_json,
    read_tensors,
    write_tensors,
)
from glfa_jax.convert.mapping import ConversionError, Table, export_params, import_params
from glfa_jax.diffusion.schedule import Schedule, ScheduleError
from glfa_jax.models.clip import Clip, ClipText
from glfa_jax.models.fmri_autoencoder import FmriAutoencoder
from glfa_jax.models.fmri_encoder import FmriEncoder
from glfa_jax.models.unet3d import UNet3D
from glfa_jax.models.vae import AutoencoderKL
from glfa_jax.models.video_mae import VideoMaeClassifier
from glfa_jax.models.vit_classifier import VitClassifier


class Pretrained(NamedTuple):
    """A module and its variables, `{"params": ...}`."""

    module: Any
    variables: dict


@dataclass(frozen=True)
class Kind:
    """What it takes to read and write one kind of model."""

    from_config: Callable[..., nn.Module]
    table: Callable[[Mapping[str, Any]], Table]
    example: Callable[[Any], tuple[tuple, dict]]
    filename: str
    current_names: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]] = dict


def _images(module: Any) -> jax.Array:
    return jnp.zeros((1, module.image_size, module.image_size, 3))


def _tokens(module: ClipText) -> jax.Array:
    return jnp.zeros((1, module.max_position_embeddings), jnp.int32)


def _videos(module: VideoMaeClassifier) -> jax.Array:
    return jnp.zeros((1, module.num_frames, module.image_size, module.image_size, 3))


def _unet_inputs(module: UNet3D) -> tuple[tuple, dict]:
    side = 2 ** (len(module.block_out_channels) - 1)
    sample = jnp.zeros((1, 1, side, side, module.in_channels))
    return (sample, jnp.zeros((), jnp.int32), jnp.zeros((1, 1, module.cross_attention_dim))), {}


def _vae_inputs(module: AutoencoderKL) -> tuple[tuple, dict]:
    side = 2 ** (len(module.block_out_channels) - 1)
    return (jnp.zeros((1, side, side, 3)),), {}


def _map_inputs(module: FmriAutoencoder) -> tuple[tuple, dict]:
    return (jnp.zeros((1, module.height, module.width)),), {}


def _window_inputs(module: FmriEncoder) -> tuple[tuple, dict]:
    return (jnp.zeros((1, module.window, module.height, module.width)),), {}


def _always(table: Table) -> Callable[[Mapping[str, Any]], Table]:
    return lambda _: table


def _own(module: type[nn.Module]) -> Callable[..., nn.Module]:
    """Our own models' config.json holds the module's fields as they are."""

    def from_config(settings: Mapping[str, Any], **options: Any) -> nn.Module:
        strangers = sorted(set(settings) - set(module.__dataclass_fields__))
        if strangers:
            raise ValueError(f"{module.__name__} configuration: unknown keys {strangers}")
        return module(**{**settings, **options})

    return from_config


def own_config(module: nn.Module) -> dict[str, Any]:
    """What `_own` reads back."""
    names = set(module.__dataclass_fields__) - {"name", "parent", "dropout"}
    return {name: getattr(module, name) for name in sorted(names)}


_DIFFUSERS, _TRANSFORMERS = "diffusion_pytorch_model.safetensors", "model.safetensors"

KINDS = {
    "unet3d": Kind(UNet3D.from_config, _always(unet3d.TABLE), _unet_inputs, _DIFFUSERS),
    "vae": Kind(
        AutoencoderKL.from_config,
        _always(vae.TABLE),
        _vae_inputs,
        _DIFFUSERS,
        current_names=vae.current_names,
    ),
    "clip": Kind(
        Clip.from_config,
        _always(clip.TABLE),
        lambda m: ((_images(m.vision_model),), {"tokens": _tokens(m.text_model)}),
        _TRANSFORMERS,
    ),
    "clip_text": Kind(
        ClipText.from_config, clip.text_table, lambda m: ((_tokens(m),), {}), _TRANSFORMERS
    ),
    "vit": Kind(
        VitClassifier.from_config,
        _always(vit.TABLE),
        lambda m: ((_images(m),), {}),
        _TRANSFORMERS,
    ),
    "video_mae": Kind(
        VideoMaeClassifier.from_config,
        _always(video_mae.TABLE),
        lambda m: ((_videos(m),), {}),
        _TRANSFORMERS,
    ),
    "fmri_autoencoder": Kind(
        _own(FmriAutoencoder), _always(glfa.AUTOENCODER), _map_inputs, _TRANSFORMERS
    ),
    "fmri_encoder": Kind(_own(FmriEncoder), _always(glfa.ENCODER), _window_inputs, _TRANSFORMERS),
}


def build(kind: str, config: Mapping[str, Any], **options: Any) -> nn.Module:
    """The module that a config.json describes; unsupported options raise, naming them."""
    return KINDS[kind].from_config(config, **options)


def parameter_shapes(kind: str, module: Any) -> dict:
    """The module's parameter tree as shapes; nothing is allocated."""
    inputs, keywords = KINDS[kind].example(module)
    return jax.eval_shape(module.init, jax.random.key(0), *inputs, **keywords)["params"]


def load(kind: str, folder: str | Path, *, dtype: Any = np.float32, **options: Any) -> Pretrained:
    """Reads config.json and weights; parameters become `dtype`, or stay as stored with None.

    Raises DirectoryError or ConversionError, one message with all that does not fit.
    """
    settings = read_config(folder)
    try:
        module = build(kind, settings, **options)
        shapes = parameter_shapes(kind, module)
    except (ValueError, TypeError, KeyError, ArithmeticError) as error:
        reason = " ".join(str(error).split())
        raise DirectoryError(
            f"{folder}: config.json describes no {kind} model ({reason})"
        ) from None
    tensors = KINDS[kind].current_names(read_tensors(folder))
    try:
        params = import_params(tensors, shapes, KINDS[kind].table(tensors))
    except ConversionError as error:
        raise ConversionError(f"{folder}: {error}") from None
    if dtype is not None:
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    return Pretrained(module, {"params": params})


def save(
    kind: str, folder: str | Path, params: Any, *, config: Mapping[str, Any], dtype: Any = None
) -> None:
    """Writes what `load`, and torch's from_pretrained, read back."""
    table = clip.TEXT_TABLE if kind == "clip_text" else KINDS[kind].table({})
    tensors = export_params(params, table)
    if dtype is not None:
        tensors = {name: tensor.astype(dtype) for name, tensor in tensors.items()}
    write_tensors(folder, tensors, config=config, filename=KINDS[kind].filename)


class TextToVideo(NamedTuple):
    """A text-to-video pipeline as diffusers stores it (ModelScope, zeroscope)."""

    unet: Pretrained
    vae: Pretrained
    text_encoder: Pretrained
    schedule: Schedule
    tokenizer: Path  # folder


def load_text_to_video(folder: str | Path) -> TextToVideo:
    """Reads the subfolders unet, vae, text_encoder, scheduler, tokenizer of a pipeline."""
    folder = Path(folder)
    path = folder / "scheduler" / "scheduler_config.json"
    try:
        schedule = Schedule.from_config(read_json(path))
    except ScheduleError as error:
        raise DirectoryError(f"{path}: {error}") from None
    tokenizer = folder / "tokenizer"
    files = [("tokenizer.json",), ("vocab.json", "merges.txt")]
    if not any(all((tokenizer / name).is_file() for name in names) for names in files):
        raise DirectoryError(
            f"{tokenizer}: holds no tokenizer, must hold vocab.json and merges.txt, or "
            "tokenizer.json"
        )
    return TextToVideo(
        unet=load("unet3d", folder / "unet"),
        vae=load("vae", folder / "vae"),
        text_encoder=load("clip_text", folder / "text_encoder"),
        schedule=schedule,
        tokenizer=tokenizer,
    )
