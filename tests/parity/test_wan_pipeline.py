"""Conditions to frames, end to end: diffusers' WanPipeline against ours.

One folder as diffusers saves it; the same conditions, starting noise and schedule; 10 steps with
guidance. The frames agree within 2 of 255 grey levels, in float32.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from benchmarks import models
from glfa_jax.convert.pretrained import in_memory
from glfa_jax.diffusion.flow import FlowSchedule
from glfa_jax.diffusion.guidance import guided
from glfa_jax.files import read_object
from glfa_jax.generators.wan import WanGenerator

STEPS, TOKENS, WIDTH, CHANNELS = 10, 7, 12, 4
FRAMES, SIZE = 5, (16, 32)
SHAPE = (2, 1 + FRAMES // 4, SIZE[0] // 8, SIZE[1] // 8, CHANNELS)
TRANSFORMER = models.small_wan(
    heads=2, head=12, inner=40, layers=2, condition=WIDTH, channels=CHANNELS
)
VAE = models.small_wan_vae(4, channels=CHANNELS, num_res_blocks=1)
SCHEDULERS = {
    "unipc": diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    ),
    "euler": diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0),
}


class Output(NamedTuple):
    """Latents (b, l, i, j, c) as sampled; frames (b, f, height, width, 3) in [0, 1]."""

    latents: np.ndarray
    frames: np.ndarray


class Pair(NamedTuple):
    theirs: diffusers.WanPipeline
    ours: WanGenerator


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("pipeline")
    draws = torch.Generator().manual_seed(0)
    parts: dict[str, Any] = {
        name: models.randomise(models.torch_model(kind, settings), seed=draws)
        for name, (kind, settings) in {
            "vae": ("wan_vae", VAE),
            "transformer": ("wan", TRANSFORMER),
        }.items()
    }
    with torch.no_grad():
        parts["vae"].decoder.conv_out.weight *= 0.4  # few values leave [-1, 1]
    pipeline = diffusers.WanPipeline(
        tokenizer=None, text_encoder=None, scheduler=SCHEDULERS["unipc"], **parts
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder)
    return Pair(pipeline, WanGenerator.open(folder))


@pytest.fixture(scope="module")
def given() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    sides = {"noise": SHAPE, "condition": (2, TOKENS, WIDTH), "negative": (1, TOKENS, WIDTH)}
    return {name: rng.standard_normal(shape, np.float32) for name, shape in sides.items()}


def _theirs(pipeline: diffusers.WanPipeline, given: dict[str, np.ndarray], scale: float) -> Output:
    options: dict[str, Any] = {
        "prompt_embeds": torch.tensor(given["condition"]),
        "negative_prompt_embeds": torch.tensor(given["negative"]).expand(2, -1, -1),
        "height": SIZE[0],
        "width": SIZE[1],
        "num_frames": FRAMES,
        "num_inference_steps": STEPS,
        "guidance_scale": scale,
        "latents": torch.tensor(np.moveaxis(given["noise"], -1, 1)),
    }
    latents = pipeline(**options, output_type="latent").frames
    frames = pipeline(**options, output_type="np").frames
    return Output(np.moveaxis(latents.numpy(), 1, -1), frames)


@pytest.fixture(scope="module")
def generate(pair: Pair):
    """Ours: one program for each schedule and method, whatever the guidance."""

    @partial(jax.jit, static_argnames=("schedule", "method"))
    def run(params, given, scale, *, schedule, method):
        ours = replace(pair.ours, schedule=schedule)
        denoise = guided(
            partial(ours.denoise, params["denoiser"]),
            condition=given["condition"],
            negative=given["negative"],
            scale=scale,
        )
        latents = ours.sample(denoise, given["noise"], steps=STEPS, method=method)
        video = ours.decode(params["codec"], latents)
        return Output(latents, (jnp.clip(video, -1, 1) + 1) / 2)

    params = {"denoiser": pair.ours.load(), "codec": pair.ours.load_codec()}
    return partial(run, in_memory(params))


@pytest.fixture(scope="module", autouse=True)
def _highest_precision():
    with jax.default_matmul_precision("highest"):
        yield


@pytest.mark.parametrize("method", SCHEDULERS)
def test_frames(method: str, pair: Pair, given, generate, tmp_path: Path) -> None:
    pair.theirs.scheduler = SCHEDULERS[method]
    wanted = _theirs(pair.theirs, given, 5.0)
    # The comparison says something: grey levels spread widely and few are cut off.
    assert wanted.frames.shape == (2, FRAMES, *SIZE, 3)
    assert wanted.frames.std() > 0.1
    assert np.mean((wanted.frames == 0) | (wanted.frames == 1)) < 0.1

    SCHEDULERS[method].save_pretrained(tmp_path)
    schedule = FlowSchedule.from_config(read_object(tmp_path / "scheduler_config.json"))
    if method == "unipc":
        assert schedule == pair.ours.schedule
    got = generate(given, 5.0, schedule=schedule, method=method)
    assert np.abs(got.latents - wanted.latents).max() < 1e-4 * np.abs(wanted.latents).max()
    assert np.abs(got.frames - wanted.frames).max() < 2 / 255


def test_conditions_and_guidance_matter(pair: Pair, given, generate) -> None:
    """A mistake in either would show in the frames that are compared above."""

    def frames(given: dict[str, np.ndarray], scale: float) -> np.ndarray:
        found = generate(given, scale, schedule=pair.ours.schedule, method="unipc")
        return np.asarray(found.frames)

    plain = frames(given, 5.0)
    assert np.abs(frames(given, 1.0) - plain).max() > 20 / 255
    other = given | {"condition": given["condition"][::-1]}
    assert np.abs(frames(other, 5.0) - plain).max() > 20 / 255
