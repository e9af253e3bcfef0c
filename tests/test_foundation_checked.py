"""What a later stage, sampling or scoring would reject of the foundation is rejected at the start,
before anything is prepared or trained."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from glfa_jax import config, system
from glfa_jax.convert.directory import read_tensors, write_tensors
from glfa_jax.errors import InputError
from glfa_jax.stages.running import begun

ROOT = Path(__file__).parents[1]


@pytest.fixture
def settings(tmp_path) -> Callable[..., config.Config]:
    """Of the demo, with a foundation of its own and no data."""
    shutil.copytree(ROOT / "foundation" / "simulated", tmp_path / "foundation")
    for path in ("run", "study", "store.zarr"):
        assert not (tmp_path / path).exists()
    own = ("run_dir=run", "data.root=study", "data.store=store.zarr", "foundation=foundation")
    given = [f"{key}={tmp_path / name}" for key, _, name in (x.partition("=") for x in own)]

    def read(*changes: str) -> config.Config:
        return config.load(ROOT / "configs" / "demo.yaml", [*given, *changes])

    return read


def remove(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def lose_a_tensor(path: Path) -> None:
    tensors = {name: np.array(x) for name, x in read_tensors(path.parent).items()}
    tensors.pop(min(tensors))
    content = json.loads((path.parent / "config.json").read_text())
    write_tensors(path.parent, tensors, config=content, filename=path.name)


def keep_the_aspect_ratio(path: Path) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"size": {"shortest_edge": 64}}))


DIFFUSERS, TRANSFORMERS = "diffusion_pytorch_model.safetensors", "model.safetensors"
DAMAGE = {
    f"clip/{TRANSFORMERS}": (remove, "clip: holds no weights, must hold exactly one of"),
    "clip/preprocessor_config.json": (remove, "preprocessor_config.json: no such file"),
    f"video-classifier/{TRANSFORMERS}": (cut, "truncated or no safetensors file"),
    "video-classifier/preprocessor_config.json": (
        keep_the_aspect_ratio,
        r"makes images of \(64, 96\) of frames of data.resolution \(64, 96\), but the model takes "
        r"\(64, 64\)",
    ),
    f"image-classifier/{TRANSFORMERS}": (lose_a_tensor, "image-classifier: 1 tensors do not fit"),
    f"text-to-video/unet/{DIFFUSERS}": (remove, "unet: holds no weights"),
    f"text-to-video/vae/{DIFFUSERS}": (lose_a_tensor, "vae: 1 tensors do not fit"),
    f"text-to-video/text_encoder/{TRANSFORMERS}": (remove, "text_encoder: holds no weights"),
    "text-to-video/scheduler/scheduler_config.json": (remove, "scheduler_config.json: no such"),
    "text-to-video/tokenizer/vocab.json": (remove, "tokenizer: "),
}


@pytest.mark.parametrize("file", DAMAGE)
def test_it_is_rejected_before_anything_is_written(file, settings, tmp_path):
    damage, said = DAMAGE[file]
    damage(tmp_path / "foundation" / file)
    with (
        pytest.raises(InputError, match=said),
        begun(settings("data.resolution=[64, 96]")),
    ):
        pass
    assert not (tmp_path / "run" / "config.yaml").exists()
    assert not (tmp_path / "store.zarr").exists()


def test_a_text_encoder_that_nothing_uses_need_not_be_there(settings, tmp_path):
    (tmp_path / "foundation" / "text-to-video" / "text_encoder" / TRANSFORMERS).unlink()
    system.check_foundation(settings("contrast.token_scale=0"))
    system.check_foundation(settings("without=[contrast]"))
    for change in ("contrast.token_scale=1", "method=lea"):
        with pytest.raises(InputError, match="text_encoder: holds no weights"):
            system.check_foundation(settings(change))


def test_weights_in_half_precision_alone_are_enough(settings, tmp_path):
    for path in (tmp_path / "foundation").rglob("*.safetensors"):
        path.rename(path.with_suffix(f".fp16{path.suffix}"))
        (path.parent / "SHA256SUMS").unlink(missing_ok=True)
    system.check_foundation(settings())
    assert system.load_clip(tmp_path / "foundation").model.variables


@pytest.mark.parametrize("change", ["contrast.token_scale=1", "method=lea"])
def test_conditions_that_are_compared_with_captions_have_no_more_tokens(change, settings):
    system.check_generator(settings(change, "conditioning.tokens=12"))
    with pytest.raises(InputError, match=r"conditioning\.tokens: 21, must be at most 20"):
        system.check_generator(settings(change, "conditioning.tokens=21"))
