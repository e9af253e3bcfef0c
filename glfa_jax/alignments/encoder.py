"""An fMRI encoder and the alignment in front of it: taken apart, put together, loaded and saved.

GLFA's layers lie in the encoder's own folder under their official names. Those of another method
lie in the folder `alignment` inside it, and the encoder beside them is one without alignment.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from glfa_jax.alignments.glfa import Glfa
from glfa_jax.alignments.identity import Identity
from glfa_jax.alignments.protocol import SHARED, Alignment, apply_layer
from glfa_jax.alignments.registry import configured, described
from glfa_jax.config import Config
from glfa_jax.convert import pretrained
from glfa_jax.convert.directory import read_config
from glfa_jax.convert.pretrained import Pretrained, in_memory
from glfa_jax.errors import InputError
from glfa_jax.models.fmri_encoder import FmriEncoder
from glfa_jax.ops.local_conv import Box

_LAYER, OF_SUBJECT = "func_align_layer", "func_align_layers_{}"  # the shared one, the i-th's
_FOLDER = "alignment"


class Layer(NamedTuple):
    """One subject's layer, or a shared one: the method it is of, and its parameters."""

    method: Alignment
    params: dict


def encoder_fields(settings: Config, *, aligned: bool) -> dict[str, Any]:
    """The fields of FmriEncoder that say which alignment stands in front of it.

    aligned: as configured (stage 2 and after) or none (before).
    """
    own, method = settings.alignment, configured(settings) if aligned else Identity()
    return {
        "kernel_size": own.kernel_size,
        **_fields_of(method),
        "subjects": len(settings.protocol.train_subjects) if aligned and own.per_subject else 0,
    }


def _fields_of(method: Alignment) -> dict[str, Any]:
    if isinstance(method, Glfa):
        parts = {"global_part": method.global_part, "local_part": method.local_part}
        return {"kernel_size": method.kernel_size, **parts, "alignment": None}
    other = None if isinstance(method, Identity) else method
    return {"global_part": False, "local_part": False, "alignment": other}


def method_of(module: FmriEncoder) -> Alignment:
    """The alignment in front of an encoder."""
    method: Any = module.alignment
    if method is not None:
        return method
    if not module.aligned:
        return Identity()
    return Glfa(module.patch_size, module.kernel_size, module.global_part, module.local_part)


def layers_of(encoder: Pretrained, *, subjects: Sequence[str] = ()) -> dict[str, Layer]:
    """The layers by subject, or under `SHARED` the one that serves all.

    subjects: those that were trained on, in order; not asked where they share a layer.
    """
    params, method = encoder.variables["params"], method_of(encoder.module)
    if not encoder.module.subjects:
        return {SHARED: Layer(method, params[_LAYER])} if _LAYER in params else {}
    layers = (Layer(method, params[OF_SUBJECT.format(i)]) for i in range(len(subjects)))
    return dict(zip(subjects, layers, strict=True))


def with_layer(encoder: Pretrained, layer: Layer) -> Pretrained:
    """The encoder with this layer for all maps, be it of its own method or of another; the rest is
    shared with it, not copied.

    A regression in place of an encoder (LEA) takes no layer but the identity's, and comes back as
    it is; raises InputError for another.
    """
    if not isinstance(encoder.module, FmriEncoder):
        if isinstance(layer.method, Identity):
            return encoder
        raise InputError(
            f"method: lea is a regression without alignment, no layer of {layer.method.name} goes "
            "in front of it"
        )
    params = without_alignment(encoder)
    if not isinstance(layer.method, Identity):
        params[_LAYER] = layer.params
    module = encoder.module.clone(subjects=0, **_fields_of(layer.method))
    return Pretrained(module, {"params": params})


def shares_all_but_layer(own: Pretrained, whole: Pretrained) -> bool:
    """Whether an encoder is the other one `with_layer`, and nothing else of it was changed."""
    mine, theirs = (jax.tree.leaves(without_alignment(x)) for x in (own, whole))
    return len(mine) == len(theirs) and all(x is y for x, y in zip(mine, theirs, strict=True))


def align(
    encoder: Pretrained, fmri: Float[np.ndarray, "*b height width"]
) -> Float[Array, "*b height width"]:
    """Maps in the common space, by an encoder with one layer or none."""
    if encoder.module.subjects:
        raise ValueError("encoder: has a layer for every subject, must be of one (with_layer)")
    maps = jnp.asarray(fmri, jnp.float32)
    layer = encoder.variables["params"].get(_LAYER)
    return maps if layer is None else apply_layer(encoder.module.layer(), layer, maps)


def save_encoder(folder: Path, module: FmriEncoder, params: dict) -> None:
    """Writes an encoder with its alignment, for `load_encoder`."""
    method: Any = module.alignment
    if method is None:
        pretrained.save("fmri_encoder", folder, params, config=pretrained.own_config(module))
        return
    plain = module.clone(alignment=None, subjects=0)
    layers = {name: x for name, x in params.items() if name.startswith(_LAYER)}
    rest = {name: x for name, x in params.items() if name not in layers}
    pretrained.save("fmri_encoder", folder, rest, config=pretrained.own_config(plain))
    for name, layer in layers.items():
        method.save(folder / _FOLDER / name, layer, maps_shape=(module.height, module.width))


def load_encoder(folder: Path, *, box: Box | None = None) -> Pretrained:
    """An encoder with its alignment, be it GLFA's or another's; raises InputError as `load`.

    The alignment's layers are in memory, the rest stays in its files (`convert.stored`).
    """
    encoder = pretrained.load("fmri_encoder", folder, box=box, stored=True)
    params = encoder.variables["params"]
    module = _with_alignment(encoder.module, folder)
    method: Any = module.alignment
    if method is None:
        layers = in_memory({n: x for n, x in params.items() if n.startswith(_LAYER)})
    else:
        shape = (module.height, module.width)
        layers = {place.name: method.load(place, maps_shape=shape) for place in _layers(folder)}
    return Pretrained(module, {"params": params | layers})


def load_layer(folder: Path, *, maps_shape: tuple[int, int]) -> Layer:
    """One subject's layer, of the method that its config.json names; raises InputError as `load`.

    maps_shape: height and width in pixels.
    """
    method = described(read_config(folder), place=str(folder))
    return Layer(method, method.load(folder, maps_shape=maps_shape))


def configured_encoder(folder: Path) -> FmriEncoder:
    """The module that `load_encoder` would give, from configurations alone."""
    return _with_alignment(pretrained.configured("fmri_encoder", folder), folder)


def _with_alignment(module: FmriEncoder, folder: Path) -> FmriEncoder:
    """With what lies in the encoder's folder beside it, where it is not GLFA's."""
    places = _layers(folder)
    if not places:
        return module
    method = described(read_config(places[0]), place=str(places[0]))
    shared = places[0].name == _LAYER
    return module.clone(alignment=method, subjects=0 if shared else len(places))


def _layers(folder: Path) -> list[Path]:
    return sorted((folder / _FOLDER).glob(f"{_LAYER}*"))


def without_alignment(encoder: Pretrained) -> dict:
    """The encoder's parameters but for those of its alignment."""
    params = encoder.variables["params"]
    return {name: x for name, x in params.items() if not name.startswith(_LAYER)}
