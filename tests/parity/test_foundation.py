"""The committed foundation models are what diffusers and transformers take them for."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet3DConditionModel
from transformers import (
    CLIPModel,
    CLIPTextModel,
    VideoMAEForVideoClassification,
    ViTForImageClassification,
)

from glfa_jax.convert import pretrained

FOLDER = Path(__file__).parents[2] / "foundation" / "simulated"
PIPELINE = FOLDER / "text-to-video"
FULL = {"dtype": torch.float32}  # transformers would compute in the half precision of the files


def agree(ours, theirs: torch.Tensor) -> None:
    theirs = theirs.detach().numpy()
    scale = np.abs(theirs).max()
    np.testing.assert_allclose(np.asarray(ours) / scale, theirs / scale, atol=1e-4)


@pytest.fixture(scope="module")
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _highest_precision():
    with jax.default_matmul_precision("highest"), torch.no_grad():
        yield


def first(x: np.ndarray) -> torch.Tensor:
    """Channels last to channels first."""
    return torch.from_numpy(np.moveaxis(x, -1, 1).copy())


def test_unet(rng):
    ours = pretrained.load("unet3d", PIPELINE / "unet")
    theirs = UNet3DConditionModel.from_pretrained(PIPELINE / "unet").eval()
    sample = rng.standard_normal((2, 6, 8, 8, 4)).astype(np.float32)
    text = rng.standard_normal((2, 20, 64)).astype(np.float32)
    out = jax.jit(ours.module.apply)(ours.variables, sample, np.array([10, 900]), text)
    expected = theirs(first(sample), torch.tensor([10, 900]), torch.from_numpy(text)).sample
    agree(np.moveaxis(out, -1, 1), expected)


def test_vae(rng):
    ours = pretrained.load("vae", PIPELINE / "vae")
    theirs = AutoencoderKL.from_pretrained(PIPELINE / "vae").eval()
    image = rng.uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    out = jax.jit(ours.module.apply)(ours.variables, image)
    agree(np.moveaxis(out, -1, 1), theirs(first(image)).sample)
    settings = json.loads((PIPELINE / "vae" / "config.json").read_text())
    assert ours.module.scaling_factor == settings["scaling_factor"] == theirs.config.scaling_factor


def test_text_encoder_and_clip(rng):
    tokens = rng.integers(0, 500, (2, 20))
    ours = pretrained.load("clip_text", PIPELINE / "text_encoder")
    theirs = CLIPTextModel.from_pretrained(PIPELINE / "text_encoder", **FULL).eval()
    out = jax.jit(ours.module.apply)(ours.variables, tokens.astype(np.int32))
    agree(out.hidden, theirs(torch.from_numpy(tokens)).last_hidden_state)
    image = rng.uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    ours = pretrained.load("clip", FOLDER / "clip")
    theirs = CLIPModel.from_pretrained(FOLDER / "clip", **FULL).eval()
    out = jax.jit(ours.module.apply)(ours.variables, image, tokens=tokens.astype(np.int32))
    expected = theirs(input_ids=torch.from_numpy(tokens), pixel_values=first(image))
    agree(out.image, expected.image_embeds)
    agree(out.text, expected.text_embeds)


def test_classifiers(rng):
    image = rng.uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    ours = pretrained.load("vit", FOLDER / "image-classifier")
    theirs = ViTForImageClassification.from_pretrained(FOLDER / "image-classifier", **FULL).eval()
    agree(jax.jit(ours.module.apply)(ours.variables, image), theirs(first(image)).logits)
    video = rng.uniform(-1, 1, (2, 6, 64, 64, 3)).astype(np.float32)
    ours = pretrained.load("video_mae", FOLDER / "video-classifier")
    theirs = VideoMAEForVideoClassification.from_pretrained(
        FOLDER / "video-classifier", **FULL
    ).eval()
    expected = theirs(torch.from_numpy(np.moveaxis(video, -1, 2).copy())).logits
    agree(jax.jit(ours.module.apply)(ours.variables, video), expected)
