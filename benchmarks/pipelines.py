"""Generators of random weights that the comparisons with torch run, in folders as users have them.

The denoiser that each of them is named for, and its autoencoder, in three sizes: `full` is the
published one, `small` for two cores, `tiny` for a try.
"""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import models
from glfa_jax.generators import GENERATORS, Generator


class Size(NamedTuple):
    """parts: folder to kind and configuration. frames, pixels of a side: of a clip. tokens: of a
    condition. rows: clips of a batch where none are asked for."""

    parts: dict[str, tuple[str, dict[str, Any]]]
    frames: int
    pixels: int
    tokens: int
    rows: int


class Sampling(NamedTuple):
    """How a generator is sampled from: method, steps and scale of guidance."""

    method: str
    steps: int
    guidance: float


SIZES = ("tiny", "small", "full")
RANK = 16
SCHEDULES = {"unet3d": models.SCHEDULE, "wan": models.WAN_SCHEDULE}


def trained(generator: str) -> str:
    """What is usually trained of a generator, by its name there."""
    return GENERATORS[generator].defaults["cotrain.trainable"]


def sampled(generator: str) -> Sampling:
    keys = ("sampler", "sampling_steps", "guidance_scale")
    return Sampling(*(GENERATORS[generator].defaults[f"evaluation.{key}"] for key in keys))


def size_of(generator: str, name: str) -> Size:
    return {"unet3d": _unet3d, "wan": _wan}[generator](name)


def _unet3d(name: str) -> Size:
    """At full size ModelScope's, at the published 6 frames of 256 x 256 pixels."""

    def size(unet: dict, vae: dict, **more: int) -> Size:
        return Size({"unet": ("unet3d", unet), "vae": ("vae", vae)}, **more)

    if name == "full":
        return size(models.UNET, models.VAE, frames=6, pixels=256, tokens=77, rows=4)
    if name == "small":
        unet = models.small_unet(32, 64, groups=8, head=16, condition=64, layers_per_block=2)
        vae = models.small_vae(16, 32, 64, groups=8)
        return size(unet, vae, frames=4, pixels=64, tokens=24, rows=2)
    unet = models.small_unet(8, groups=4, head=4, condition=8) | {
        "down_block_types": ["CrossAttnDownBlock3D"],
        "up_block_types": ["CrossAttnUpBlock3D"],
    }
    return size(unet, models.small_vae(8, groups=4), frames=2, pixels=4, tokens=3, rows=2)


def _wan(name: str) -> Size:
    """At full size the 1.3B model, at 13 frames of 256 x 256 pixels as configs/wen2018_wan.yaml."""

    def size(transformer: dict, vae: dict, **more: int) -> Size:
        return Size({"transformer": ("wan", transformer), "vae": ("wan_vae", vae)}, **more)

    if name == "full":
        return size(models.WAN, models.WAN_VAE, frames=13, pixels=256, tokens=77, rows=4)
    if name == "small":
        wan = models.small_wan(heads=4, head=64, inner=1024, layers=6, condition=64)
        vae = models.small_wan_vae(16, channels=16)
        return size(wan, vae, frames=13, pixels=128, tokens=24, rows=2)
    wan = models.small_wan(heads=2, head=6, inner=20, layers=2, condition=8, channels=2)
    vae = models.small_wan_vae(2, channels=2, num_res_blocks=1)
    return size(wan, vae, frames=5, pixels=16, tokens=3, rows=2)


def write_pipeline(folder: Path, generator: str, size: Size) -> None:
    """Random weights that keep the scale of what they are given, as diffusers stores them."""
    for part, made in size.parts.items():
        models.random_torch_model(*made, seed=0, spread=0.1).save_pretrained(folder / part)
    (folder / "scheduler").mkdir()
    shutil.copy(SCHEDULES[generator], folder / "scheduler")


def opened(generator: str, folder: Path) -> Generator:
    return GENERATORS[generator].open(folder)


def make_batch(generator: Generator, size: Size, rows: int) -> dict[str, np.ndarray]:
    """What a training step and a sampler are given, the same on both sides."""
    rng = np.random.default_rng(1)
    latents = (rows, *generator.latent_shape(size.frames, size.pixels, size.pixels))
    tokens = (size.tokens, generator.condition_width)
    return {
        "clean": rng.standard_normal(latents, np.float32),
        "noise": rng.standard_normal(latents, np.float32),
        "t": np.array(generator.times(jax.random.key(1), rows)),
        "tokens": rng.standard_normal((rows, *tokens), np.float32),
        "negative": rng.standard_normal((1, *tokens), np.float32),
    }
