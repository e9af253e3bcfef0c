"""Pretrained models by folder, in the layout that diffusers and transformers load and save."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from glfa_jax import files
from glfa_jax.convert import clip_model, glfa, umt5, unet3d, vae, video_mae, vit, wan, wan_vae
from glfa_jax.convert.directory import (
    DirectoryError,
    lone_variant,
    read_config,
    read_tensors,
    write_tensors,
)
from glfa_jax.convert.mapping import ConversionError, Table, export_views, places, stored_params
from glfa_jax.convert.stored import Stored
from glfa_jax.diffusion.flow import FlowSchedule
from glfa_jax.diffusion.schedule import Schedule, ScheduleError
from glfa_jax.models.clip_model import Clip, ClipText
from glfa_jax.models.config_values import misfits
from glfa_jax.models.fmri_autoencoder import FmriAutoencoder
from glfa_jax.models.fmri_encoder import FmriEncoder
from glfa_jax.models.lea import Lea
from glfa_jax.models.umt5 import UMT5Text
from glfa_jax.models.unet3d import UNet3D
from glfa_jax.models.vae import AutoencoderKL
from glfa_jax.models.video_mae import VideoMaeClassifier
from glfa_jax.models.vit_classifier import VitClassifier
from glfa_jax.models.wan import WanTransformer
from glfa_jax.models.wan_vae import AutoencoderKLWan

S = TypeVar("S", Schedule, FlowSchedule)

# Of numbers in a model, far beyond every one there is.
_LARGEST = 10**13


class Pretrained(NamedTuple):
    """A module and its variables, `{"params": ...}`."""

    module: Any
    variables: dict


@dataclass(frozen=True)
class Kind:
    """What it takes to read and write one kind of model.

    `table`: for tensors of these names; `written`: for those that we write. `torch_class`: the
    class of diffusers or transformers that a config.json may name; None for our own models.
    `identity`: what says so in that config.json.
    """

    from_config: Callable[..., nn.Module]
    table: Callable[[Mapping[str, Any]], Table]
    written: Table
    example: Callable[[Any], tuple[tuple, dict]]
    filename: str
    torch_class: str | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)
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


def _wan_inputs(module: WanTransformer) -> tuple[tuple, dict]:
    sample = jnp.zeros((1, *module.patch_size, module.in_channels))
    return (sample, jnp.zeros(()), jnp.zeros((1, 1, module.text_dim))), {}


def _vae_inputs(module: AutoencoderKL) -> tuple[tuple, dict]:
    side = 2 ** (len(module.block_out_channels) - 1)
    return (jnp.zeros((1, side, side, module.in_channels)),), {}


def _wan_vae_inputs(module: AutoencoderKLWan) -> tuple[tuple, dict]:
    side = module.pixels_per_latent
    return (jnp.zeros((1, 1, side, side, module.in_channels)),), {}


def _map_inputs(module: FmriAutoencoder) -> tuple[tuple, dict]:
    whole = {} if module.decoder else {"method": "encode"}
    return (jnp.zeros((1, module.height, module.width)),), whole


def _window_inputs(module: FmriEncoder | Lea) -> tuple[tuple, dict]:
    own = isinstance(module, FmriEncoder) and module.subjects
    subjects = (own,) if own else ()
    return (jnp.zeros((1, *subjects, module.window, module.height, module.width)),), {}


def _clip_inputs(module: Clip) -> tuple[tuple, dict]:
    return (_images(module.vision_model),), {"tokens": _tokens(module.text_model)}


def _own(module: type[nn.Module]) -> Callable[..., nn.Module]:
    """Our own models' config.json holds the module's fields as they are."""

    def from_config(settings: Mapping[str, Any], **options: Any) -> nn.Module:
        known = set(module.__dataclass_fields__) - {"name", "parent"}
        strangers = sorted(set(settings) - known)
        problems = [f"unknown keys {strangers}"] if strangers else []
        own = {key: value for key, value in settings.items() if key in known}
        problems += misfits(own, module=module)
        if problems:
            raise ValueError(f"{module.__name__} configuration: {'; '.join(problems)}")
        return module(**{**settings, **options})

    return from_config


def own_config(module: nn.Module) -> dict[str, Any]:
    """What `_own` reads back."""
    other = {"name", "parent", "dropout", "box", "dtype", "remat", "alignment"}
    names = set(module.__dataclass_fields__) - other
    return {name: getattr(module, name) for name in sorted(names)}


def _diffusers(module: Any, table: Table, example: Callable, name: str, **options: Any) -> Kind:
    return Kind(
        module.from_config,
        lambda _: table,
        table,
        example,
        filename="diffusion_pytorch_model.safetensors",
        torch_class=name,
        identity={"_class_name": name},
        **options,
    )


def _transformers(
    module: Any,
    table: Table,
    example: Callable,
    name: str,
    model_type: str,
    reads: Callable[[Mapping[str, Any]], Table] | None = None,
    **options: Any,
) -> Kind:
    return Kind(
        module.from_config,
        reads or (lambda _: table),
        table,
        example,
        filename="model.safetensors",
        torch_class=name,
        identity={"architectures": [name], "model_type": model_type},
        **options,
    )


def _glfa(module: type[nn.Module], table: Table, example: Callable) -> Kind:
    return Kind(_own(module), lambda _: table, table, example, filename="model.safetensors")


KINDS = {
    "unet3d": _diffusers(UNet3D, unet3d.TABLE, _unet_inputs, "UNet3DConditionModel"),
    "vae": _diffusers(
        AutoencoderKL, vae.TABLE, _vae_inputs, "AutoencoderKL", current_names=vae.current_names
    ),
    "wan": _diffusers(WanTransformer, wan.TABLE, _wan_inputs, "WanTransformer3DModel"),
    "wan_vae": _diffusers(AutoencoderKLWan, wan_vae.TABLE, _wan_vae_inputs, "AutoencoderKLWan"),
    "clip": _transformers(Clip, clip_model.TABLE, _clip_inputs, "CLIPModel", "clip"),
    "clip_text": _transformers(
        ClipText,
        clip_model.TEXT_TABLE,
        lambda m: ((_tokens(m),), {}),
        "CLIPTextModel",
        "clip_text_model",
        reads=clip_model.text_table,
    ),
    "umt5_text": _transformers(
        UMT5Text,
        umt5.TABLE,
        lambda m: ((jnp.ones((1, 1), jnp.int32),), {}),
        "UMT5EncoderModel",
        "umt5",
        current_names=umt5.current_names,
    ),
    "vit": _transformers(
        VitClassifier, vit.TABLE, lambda m: ((_images(m),), {}), "ViTForImageClassification", "vit"
    ),
    "video_mae": _transformers(
        VideoMaeClassifier,
        video_mae.TABLE,
        lambda m: ((_videos(m),), {}),
        "VideoMAEForVideoClassification",
        "videomae",
        current_names=video_mae.current_names,
    ),
    "fmri_autoencoder": _glfa(FmriAutoencoder, glfa.AUTOENCODER, _map_inputs),
    "fmri_encoder": _glfa(FmriEncoder, glfa.ENCODER, _window_inputs),
    "lea": _glfa(Lea, glfa.LEA, _window_inputs),
}


def declared_class(config: Mapping[str, Any]) -> str | None:
    """The PyTorch class that a config.json names, if any."""
    name, listed = config.get("_class_name"), config.get("architectures")
    if name is None:
        name = listed[0] if isinstance(listed, list) and listed else listed or None
    return None if name is None else str(name)


def build(kind: str, config: Mapping[str, Any], **options: Any) -> nn.Module:
    """The module that a config.json describes; unsupported options raise, naming them."""
    named, wanted = declared_class(config), KINDS[kind].torch_class
    if wanted is not None and named not in (None, wanted):
        raise ValueError(f"it is of the class {named}, must be of {wanted}")
    return KINDS[kind].from_config(config, **options)


def parameter_shapes(kind: str, module: Any) -> dict:
    """The module's parameter tree as shapes; nothing is allocated."""
    return jax.tree.map(lambda leaf: leaf, _traced(kind, module))  # callers may change the tree


@lru_cache(maxsize=16)
def _traced(kind: str, module: Any) -> dict:
    """Kept: tracing takes seconds, and one model is asked for in checks, loading and training."""

    def init() -> dict:
        inputs, keywords = KINDS[kind].example(module)
        return module.init(jax.random.key(0), *inputs, **keywords)

    return jax.eval_shape(init)["params"]


def configured(kind: str, folder: str | Path) -> Any:
    """The module that a folder's config.json describes; nothing but that file is read."""
    with _describing(kind, folder):
        return build(kind, read_config(folder))


def described(
    kind: str, config: Mapping[str, Any], *, place: str | Path, **options: Any
) -> tuple[Any, dict]:
    """The module of a config.json and its parameter shapes; DirectoryError names `place`."""
    with _describing(kind, place):
        module = build(kind, config, **options)
        shapes = parameter_shapes(kind, module)
        size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
        if size > _LARGEST:
            raise ValueError(f"it would have {size:,} parameters")
        return module, shapes


@contextmanager
def _describing(kind: str, place: str | Path) -> Iterator[None]:
    try:
        yield
    except DirectoryError:
        raise
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise DirectoryError(
            f"{place}: its configuration describes no {kind} model ({reason})"
        ) from None


def load(
    kind: str,
    folder: str | Path,
    *,
    dtype: Any = np.float32,
    compute_dtype: DTypeLike = jnp.float32,
    stored: bool = False,
    **options: Any,
) -> Pretrained:
    """Reads config.json and weights; parameters become `dtype`, or stay as stored with None.

    compute_dtype: what the module computes in; `options` are further ones of it. stored: parameters
    stay in their files as `convert.stored.Stored`, for what is placed on devices one by one; else
    they and one more tensor are all that memory holds. Weights of a variant, such as fp16, are
    taken where there are no plain ones. Raises DirectoryError or ConversionError, one message with
    all that does not fit.
    """
    module, shapes = described(
        kind, read_config(folder), place=folder, dtype=compute_dtype, **options
    )
    with _tensors(kind, folder) as (tensors, table):
        params = stored_params(tensors, shapes, table, dtype=dtype)
    return Pretrained(module, {"params": params if stored else in_memory(params)})


def in_memory(tree: Any) -> Any:
    """A tree, or a `Pretrained`, with every stored parameter read; arrays stay as they are."""
    return jax.tree.map(lambda x: np.asarray(x) if isinstance(x, Stored) else x, tree)


def validate_weights(kind: str, folder: str | Path) -> None:
    """Rejects the weights that `load` would reject, in seconds: of files, headers alone are read.

    Their checksums, which need every byte, `load` compares.
    """
    _, shapes = described(kind, read_config(folder), place=folder)
    with _tensors(kind, folder, checksums=False) as (tensors, table):
        places(tensors, shapes, table)


@contextmanager
def _tensors(
    kind: str, folder: str | Path, **reading: bool
) -> Iterator[tuple[Mapping[str, np.ndarray], Table]]:
    """The tensors under the names of our tables, and the table for them; errors name the folder."""
    held = read_tensors(folder, variant=lone_variant(folder), **reading)
    tensors = KINDS[kind].current_names(held)
    try:
        yield tensors, KINDS[kind].table(tensors)
    except ConversionError as error:
        raise ConversionError(f"{folder}: {error}") from None


def save(
    kind: str, folder: str | Path, params: Any, *, config: Mapping[str, Any], dtype: Any = None
) -> None:
    """Writes what `load`, and torch's from_pretrained, read back."""
    tensors = export_views(params, KINDS[kind].written)
    write_tensors(folder, tensors, config=config, filename=KINDS[kind].filename, dtype=dtype)


def read_schedule(folder: str | Path) -> Schedule:
    """The noise schedule of a pipeline's folder."""
    return _read_scheduler(folder, Schedule.from_config)


def read_flow(folder: str | Path) -> FlowSchedule:
    """The same of a pipeline that is a flow."""
    return _read_scheduler(folder, FlowSchedule.from_config)


def _read_scheduler(folder: str | Path, from_config: Callable[[Mapping[str, Any]], S]) -> S:
    path = Path(folder) / "scheduler" / "scheduler_config.json"
    files.verify_checksums(path.parent, error=DirectoryError)
    try:
        return from_config(files.read_object(path, error=DirectoryError))
    except ScheduleError as error:
        raise DirectoryError(f"{path}: {error}") from None


class Pipeline(NamedTuple):
    """A text-to-video pipeline of diffusers.

    denoiser: its subfolder, by which a pipeline is known. parts: subfolder to kind of every model.
    optional: those that may be missing. schedule: reads `scheduler/`.
    """

    denoiser: str
    parts: Mapping[str, str]
    schedule: Callable[[str | Path], Schedule | FlowSchedule]
    optional: tuple[str, ...] = ()

    @property
    def declared(self) -> list[str]:
        """How model_index.json names the denoiser."""
        return ["diffusers", str(KINDS[self.parts[self.denoiser]].torch_class)]


PIPELINES = (
    # ModelScope, zeroscope
    Pipeline("unet", {"unet": "unet3d", "vae": "vae", "text_encoder": "clip_text"}, read_schedule),
    # Wan 2.1, of whose 12 GB a half that training does not read is the text encoder
    Pipeline(
        "transformer",
        {"transformer": "wan", "vae": "wan_vae", "text_encoder": "umt5_text"},
        read_flow,
        optional=("text_encoder",),
    ),
)


def pipeline_in(folder: str | Path) -> Pipeline:
    """The one whose denoiser's folder is there; where none is, the first."""
    found = (one for one in PIPELINES if (Path(folder) / one.denoiser).is_dir())
    return next(found, PIPELINES[0])


def require_lone_transformer(folder: str | Path) -> None:
    if (second := Path(folder) / "transformer_2").is_dir():
        raise DirectoryError(
            f"{second}: a second transformer for little noise, as in Wan 2.2, is not supported, "
            "only a single one, as in Wan 2.1"
        )


def find_tokenizer(folder: str | Path) -> Path:
    """The tokenizer's folder in a pipeline's."""
    tokenizer = Path(folder) / "tokenizer"
    wanted = [("tokenizer.json",), ("vocab.json", "merges.txt")]
    if not any(all((tokenizer / name).is_file() for name in names) for names in wanted):
        raise DirectoryError(
            f"{tokenizer}: holds no tokenizer, must hold vocab.json and merges.txt, or "
            "tokenizer.json"
        )
    files.verify_checksums(tokenizer, error=DirectoryError)
    return tokenizer
