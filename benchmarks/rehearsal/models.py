"""Models of the published sizes with random weights, in the layouts that are published."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import models
from examples.simulated.tokenizer import write_tokenizer
from glfa_jax.convert import pretrained
from glfa_jax.convert.directory import write_tensors
from glfa_jax.convert.mapping import export_views
from glfa_jax.convert.transfer import export_model
from glfa_jax.files import read_object

_PUBLISHED = models.PUBLISHED.parent
_VIT = models.small_transformer(768, inner=3072, heads=12, layers=12) | {"num_channels": 3}
_CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "video-classifier": _VIT
    | {"image_size": 224, "patch_size": 16, "num_frames": 16, "tubelet_size": 2, "qkv_bias": True}
    | models.labels(400),
    "image-classifier": _VIT | {"image_size": 224, "patch_size": 16} | models.labels(1000),
}
_KINDS = {"clip": "clip", "video-classifier": "video_mae", "image-classifier": "vit"}
_MEAN, _STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
_PREPROCESSING = {
    "clip": {
        "do_resize": True,
        "size": {"shortest_edge": 224},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
    },
    # As it is published: the crop's size is left to the default, 224.
    "video-classifier": {
        "do_resize": True,
        "size": {"shortest_edge": 224},
        "do_center_crop": True,
        "resample": 2,
    },
    "image-classifier": {"do_resize": True, "size": 224, "resample": 2},
}
_COMMON = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}


def write(foundation: Path) -> None:
    """ModelScope's pipeline, CLIP ViT-H/14, ViT-B/16, VideoMAE-B."""
    pipeline = foundation / "text-to-video"
    for part, kind in pretrained.pipeline_in(models.PUBLISHED).parts.items():
        source = models.PUBLISHED / part
        write_random(kind, pipeline / part, config=read_object(source / "config.json"))
    shutil.copytree(models.PUBLISHED / "scheduler", pipeline / "scheduler")
    captions = ["a bright square", "a dark square"]
    write_tokenizer(captions, pipeline / "tokenizer", max_length=77)
    for name, kind in _KINDS.items():
        place = _PUBLISHED / name / "config.json"
        config = _CONFIGS[name] if name in _CONFIGS else read_object(place)
        write_random(kind, foundation / name, config=config)
        text = json.dumps(_PREPROCESSING[name] | _COMMON | {"image_mean": _MEAN, "image_std": _STD})
        (foundation / name / "preprocessor_config.json").write_text(text)


def write_fmri_pte(path: Path, *, aside: Path) -> None:
    """The autoencoder of 256 x 256 maps as one `.pth`."""
    write_random("fmri_autoencoder", aside, config={"height": 256, "width": 256})
    export_model("fmri_autoencoder", aside, path)
    shutil.rmtree(aside)


def write_random(kind: str, folder: Path, *, config: Mapping[str, Any]) -> None:
    """Norms at one, biases at zero, kernels normal with variance 1/fan-in; a tensor at a time."""
    kinds = pretrained.KINDS[kind]
    module = pretrained.build(kind, config)
    shapes = pretrained.parameter_shapes(kind, module)
    # No memory is taken: what is written is drawn when its turn comes.
    empty = jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), shapes)
    rng = np.random.default_rng(0)

    def draw(name: str, tensor: np.ndarray) -> np.ndarray:
        if tensor.ndim < 2:
            return np.full(tensor.shape, name.endswith("weight"), np.float32)
        spread = np.float32(np.prod(tensor.shape[1:]) ** -0.5)
        return rng.standard_normal(tensor.shape, np.float32) * spread

    own = kinds.torch_class is None
    write_tensors(
        folder,
        export_views(empty, kinds.written),
        config=pretrained.own_config(module) if own else {**kinds.identity, **config},
        filename=kinds.filename,
        change=draw,
    )
