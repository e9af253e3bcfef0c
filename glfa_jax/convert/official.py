"""The official GLFA and fMRI-PTE checkpoints: which model they hold, as far as shapes tell it.

They are `.pth` files without a configuration. What shapes cannot tell comes from the published
values (SPEC §2) where the width is the published one, else from the user.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from glfa_jax.errors import InputError

_AUTOENCODER = "transformer."
# Where an encoder's checkpoint holds a whole autoencoder.
INNER = f"fmri_encoder.{_AUTOENCODER}"
# The part of the autoencoder that an encoder carries along without using it.
_DECODER = re.compile(r"^(mask_token$|decoder_|pred\.)")
_HEAD = "fmri2clip."
_PUBLISHED_WIDTH, _PUBLISHED_HEADS = 1024, 16
_HEADS = {
    "fmri_encoder": ("num_heads", "conditioning_heads"),
    "fmri_autoencoder": ("num_heads",),
}
# Kinds of our models that there are official checkpoints of.
KINDS = tuple(_HEADS)

Tensors = Mapping[str, np.ndarray]


class OfficialError(InputError):
    """A checkpoint is no official one, or more must be known to read it."""


def kind_of(names: Mapping[str, Any]) -> str | None:
    """Which of our models tensors of these official names belong to, if any."""
    if any(name.startswith(INNER) for name in names):
        return "fmri_encoder"
    return "fmri_autoencoder" if any(name.startswith(_AUTOENCODER) for name in names) else None


def from_official(kind: str, tensors: Tensors) -> dict[str, np.ndarray]:
    """Tensors under the names of our own model folders.

    An autoencoder is taken out of an encoder's checkpoint too, which holds one whole.
    """
    if kind == "fmri_encoder":
        return dict(tensors)
    prefix = INNER if kind_of(tensors) == "fmri_encoder" else _AUTOENCODER
    inner = prefix == INNER
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix) or not inner
    }


def to_official(
    kind: str, tensors: Tensors, *, module_prefix: bool = False
) -> dict[str, np.ndarray]:
    """The inverse of `from_official`.

    `module_prefix`: put `module.` before every name, as training on several devices does.
    """
    prefix = ("module." if module_prefix else "") + (
        _AUTOENCODER if kind == "fmri_autoencoder" else ""
    )
    return {prefix + name: tensor for name, tensor in tensors.items()}


def decoder_of(autoencoder: Tensors) -> dict[str, np.ndarray]:
    """An autoencoder's decoder under the names that it has in an encoder's checkpoint."""
    names = decoder_names("fmri_autoencoder", autoencoder)
    return {INNER + name: autoencoder[name] for name in names}


def decoder_names(kind: str, names: Iterable[str]) -> list[str]:
    """Which of our names belong to the autoencoder's decoder and its bottleneck."""
    prefix = INNER if kind == "fmri_encoder" else ""
    return [
        name
        for name in names
        if name.startswith(prefix) and _DECODER.search(name.removeprefix(prefix))
    ]


def architecture(
    kind: str, tensors: Tensors, *, given: Mapping[str, Any], place: str
) -> dict[str, Any]:
    """The fields of FmriAutoencoder or FmriEncoder for tensors under our names.

    `given`: fields that the user states; they win. Raises OfficialError naming what is missing.
    """
    shapes = _Shapes(tensors, place)
    own = _encoder(shapes) if kind == "fmri_encoder" else _vit(shapes, "") | _decoder(shapes)
    config = own | _heads(kind, own["dim"], given, place) | dict(given)
    for key in _HEADS[kind]:
        heads = config[key]
        if type(heads) is not int or heads < 1 or own["dim"] % heads:
            raise OfficialError(
                f"{place}: {key} is {heads!r}, must be a whole number that divides the width "
                f"{own['dim']}"
            )
    if not {"height", "width"} <= config.keys():
        raise OfficialError(
            f"{place}: the patches make no square, so the tensors do not tell the size of the "
            "maps: state it with --set height=N --set width=N"
        )
    return config


class _Shapes:
    """Looks shapes up, with a sentence for what is not there."""

    def __init__(self, tensors: Tensors, place: str):
        self.tensors, self.place = tensors, place

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def of(self, name: str, rank: int) -> tuple[int, ...]:
        if name not in self.tensors:
            raise OfficialError(f"{self.place}: is no official checkpoint, it lacks {name}")
        shape = tuple(self.tensors[name].shape)
        if len(shape) != rank or 0 in shape:
            raise OfficialError(
                f"{self.place}: is no official checkpoint, {name} is {shape}, must have {rank} axes"
            )
        return shape

    def count(self, prefix: str) -> int:
        """How many numbered blocks follow the prefix."""
        pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
        found = (pattern.match(name) for name in self.tensors)
        return 1 + max((int(match[1]) for match in found if match), default=-1)


def _vit(shapes: _Shapes, prefix: str) -> dict[str, Any]:
    width, _, patch, _ = shapes.of(f"{prefix}patch_embed.proj.weight", 4)
    tokens = shapes.of(f"{prefix}pos_embed", 3)[1]
    rows = math.isqrt(tokens - 1)
    square = {"height": rows * patch, "width": rows * patch} if rows**2 == tokens - 1 else {}
    hidden = shapes.of(f"{prefix}blocks.0.mlp.fc1.weight", 2)[0]
    return square | {
        "patch_size": patch,
        "dim": width,
        "depth": shapes.count(f"{prefix}blocks"),
        "mlp_ratio": hidden / width,
    }


def _decoder(shapes: _Shapes) -> dict[str, Any]:
    if not decoder_names("fmri_autoencoder", shapes.tensors):
        return {"decoder": False}
    return {
        "decoder_depth": shapes.count("decoder_blocks"),
        "latent": shapes.of("pred.weight", 2)[0],
    }


def _encoder(shapes: _Shapes) -> dict[str, Any]:
    found = _vit(shapes, INNER)
    local, mixing = "func_align_layer.weight", "func_align_layer.global_align_weight"
    found |= {"local_part": local in shapes, "global_part": mixing in shapes}
    if local in shapes:
        *_, found["height"], found["width"], taps = shapes.of(local, 6)
        found["kernel_size"] = math.isqrt(taps)
    mapper = "fmri_encoder_proj.cond_state_transform.channel_mapper"
    hidden, seen = shapes.of(f"{mapper}.0.weight", 2)
    found |= {
        "hidden_tokens": hidden,
        "tokens": shapes.of(f"{mapper}.1.weight", 2)[0],
        "window": seen // shapes.of(f"{INNER}pos_embed", 3)[1],
    }
    if not any(name.startswith(_HEAD) for name in shapes.tensors):
        raise OfficialError(
            f"{shapes.place}: holds no contrastive head, must hold one: {_HEAD}channel_mapper and "
            f"{_HEAD}dim_mapper, or {_HEAD}1"
        )
    if "fmri2clip.1.weight" in shapes:
        return found | {"head": "linear", "clip_dim": shapes.of("fmri2clip.1.weight", 2)[0]}
    return found | {"head": "conv", "clip_dim": shapes.of("fmri2clip.dim_mapper.weight", 2)[0]}


def _heads(kind: str, width: int, given: Mapping[str, Any], place: str) -> dict[str, int]:
    """Numbers of attention heads, which leave no trace in shapes."""
    if width == _PUBLISHED_WIDTH:
        return dict.fromkeys(_HEADS[kind], _PUBLISHED_HEADS)
    unknown = [key for key in _HEADS[kind] if key not in given]
    if unknown:
        wanted = " ".join(f"--set {key}=N" for key in unknown)
        raise OfficialError(
            f"{place}: the tensors do not tell the number of attention heads, and the width "
            f"{width} is not the published {_PUBLISHED_WIDTH}: state it with {wanted}"
        )
    return {}
