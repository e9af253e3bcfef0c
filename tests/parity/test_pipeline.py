"""Captions to frames, end to end: diffusers' text-to-video pipeline against ours.

One folder as diffusers saves it; the same captions, starting noise and schedule; 25 steps with
guidance. The frames agree within 2 of 255 grey levels, in float32.
"""

from collections.abc import Callable
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
import transformers

from benchmarks import models
from examples.simulated.tokenizer import write_tokenizer
from glfa_jax.convert.pretrained import in_memory
from glfa_jax.data.captions import Tokenizer
from glfa_jax.diffusion.guidance import guided
from glfa_jax.diffusion.schedule import Schedule
from glfa_jax.files import read_object
from glfa_jax.generators.unet3d import UNet3DGenerator

STEPS, TOKENS = 25, 24
FRAMES, HEIGHT, WIDTH, FACTOR = 3, 24, 40, 4  # pixels, and how many of them a latent spans
# The first is padded, the second a token too long.
CAPTIONS = ["a red ball moves to the left", "a blue box grows in front of the sea"]
NEGATIVE = "a grey ball in the dark"
# As published with ModelScope text-to-video 1.7b.
MODELSCOPE = {
    "_class_name": "DDIMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
SCHEDULERS = {"dpm++": diffusers.DPMSolverMultistepScheduler, "ddim": diffusers.DDIMScheduler}
UNET = models.small_unet(16, 32, groups=8, head=8, condition=24)
VAE = models.small_vae(8, 16, 16, groups=4)
CASES = {
    "dpm++": ("dpm++", "epsilon", 9.0),
    "dpm++, little guidance": ("dpm++", "epsilon", 2.5),
    "dpm++, velocity": ("dpm++", "v_prediction", 9.0),
    "ddim": ("ddim", "epsilon", 9.0),
    "ddim, velocity, little guidance": ("ddim", "v_prediction", 2.5),
}


class Output(NamedTuple):
    """Latents (b, f, h, w, c) as sampled; frames (b, f, height, width, 3) in [0, 1]."""

    latents: np.ndarray
    frames: np.ndarray


class Pair(NamedTuple):
    theirs: diffusers.TextToVideoSDPipeline
    ours: UNet3DGenerator
    tokenizer: Tokenizer


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("pipeline")
    write_tokenizer([*CAPTIONS, NEGATIVE], folder / "words", max_length=TOKENS)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder / "words")
    end = len(tokenizer) - 1
    text = models.small_transformer(24, inner=48, heads=2, layers=2)
    text |= {"vocab_size": len(tokenizer), "max_position_embeddings": TOKENS}
    text |= {"bos_token_id": end - 1, "eos_token_id": end, "pad_token_id": end}
    configs = {"vae": ("vae", VAE), "text_encoder": ("clip_text", text), "unet": ("unet3d", UNET)}
    generator = torch.Generator().manual_seed(0)
    parts = {
        name: models.randomise(models.torch_model(*made), seed=generator, vectors=False)
        for name, made in configs.items()
    }
    with torch.no_grad():
        parts["vae"].decoder.conv_out.weight *= 0.5  # few values leave [-1, 1]
    scheduler = diffusers.DPMSolverMultistepScheduler.from_config(MODELSCOPE)
    pipeline = diffusers.TextToVideoSDPipeline(tokenizer=tokenizer, scheduler=scheduler, **parts)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder / "whole")
    ours = UNet3DGenerator.open(folder / "whole")
    return Pair(pipeline, ours, Tokenizer.load(folder / "whole" / "tokenizer"))


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    shape = (len(CAPTIONS), FRAMES, HEIGHT // FACTOR, WIDTH // FACTOR, 4)
    return np.random.default_rng(1).standard_normal(shape, np.float32)


def _theirs(
    pipeline: diffusers.TextToVideoSDPipeline, noise: np.ndarray, *, guidance: float
) -> Output:
    latents = pipeline(
        CAPTIONS,
        negative_prompt=[NEGATIVE] * len(CAPTIONS),
        height=HEIGHT,
        width=WIDTH,
        num_frames=noise.shape[1],
        num_inference_steps=STEPS,
        guidance_scale=guidance,
        latents=torch.from_numpy(np.ascontiguousarray(noise.transpose(0, 4, 1, 2, 3))),
        output_type="latent",
    ).frames
    with torch.no_grad():
        video = pipeline.decode_latents(latents)
    frames = pipeline.video_processor.postprocess_video(video, output_type="np")
    return Output(latents.numpy().transpose(0, 2, 3, 4, 1), frames)


@pytest.fixture(scope="module")
def generate(pair: Pair) -> Callable[..., Output]:
    """Ours: one program for each schedule and method, whatever the guidance."""
    text = in_memory(pair.ours.load_text_encoder())

    @partial(jax.jit, static_argnames=("schedule", "method"))
    def run(params, noise, captions, negative, guidance, *, schedule, method):
        ours = replace(pair.ours, schedule=schedule)

        def condition(tokens: jax.Array) -> jax.Array:
            encoded: Any = text.module.apply(params["text"], tokens)
            return encoded.hidden

        denoise = guided(
            partial(ours.denoise, params["denoiser"]),
            condition=condition(captions),
            negative=condition(negative),
            scale=guidance,
        )
        latents = ours.sample(denoise, noise, steps=STEPS, method=method)
        video = ours.decode(params["codec"], latents)
        return Output(latents, (jnp.clip(video, -1, 1) + 1) / 2)

    params = in_memory({"denoiser": pair.ours.load(), "codec": pair.ours.load_codec()})
    return partial(run, params | {"text": text.variables})


@pytest.fixture(scope="module", autouse=True)
def _highest_precision():
    with jax.default_matmul_precision("highest"):
        yield


def test_text(pair: Pair) -> None:
    pipeline, text = pair.theirs, in_memory(pair.ours.load_text_encoder())
    with torch.no_grad():
        wanted = pipeline.encode_prompt(CAPTIONS, "cpu", 1, True, [NEGATIVE] * len(CAPTIONS))
    encode = jax.jit(text.module.apply)
    for texts, states in zip((CAPTIONS, [NEGATIVE] * len(CAPTIONS)), wanted, strict=True):
        states = states.numpy()
        got = encode(text.variables, pair.tokenizer(texts))
        assert np.abs(got.hidden - states).max() < 1e-4 * np.abs(states).max()


@pytest.mark.parametrize("case", CASES)
def test_frames(case: str, pair: Pair, noise: np.ndarray, generate, tmp_path: Path) -> None:
    method, prediction_type, guidance = CASES[case]
    scheduler = SCHEDULERS[method].from_config(MODELSCOPE | {"prediction_type": prediction_type})
    scheduler.save_pretrained(tmp_path)
    pair.theirs.scheduler = scheduler
    wanted = _theirs(pair.theirs, noise, guidance=guidance)
    # The comparison says something: grey levels spread widely and few are cut off.
    assert wanted.frames.shape == (len(CAPTIONS), FRAMES, HEIGHT, WIDTH, 3)
    assert wanted.frames.std() > 0.1
    assert np.mean((wanted.frames == 0) | (wanted.frames == 1)) < 0.1

    schedule = Schedule.from_config(read_object(tmp_path / "scheduler_config.json"))
    captions, negative = pair.tokenizer(CAPTIONS), pair.tokenizer([NEGATIVE])
    got = generate(noise, captions, negative, guidance, schedule=schedule, method=method)
    assert np.abs(got.latents - wanted.latents).max() < 1e-4 * np.abs(wanted.latents).max()
    assert np.abs(got.frames - wanted.frames).max() < 2 / 255


def test_the_folder_brings_its_schedule(pair: Pair) -> None:
    """That of the DPM-Solver++ with which the pipeline was saved."""
    scheduler = diffusers.DPMSolverMultistepScheduler.from_config(MODELSCOPE)
    assert pair.ours.schedule == Schedule.from_config(dict(scheduler.config))


def test_captions_and_guidance_matter(pair: Pair, noise: np.ndarray, generate) -> None:
    """A mistake in either would show in the frames that are compared above."""
    captions, negative = pair.tokenizer(CAPTIONS), pair.tokenizer([NEGATIVE])

    def frames(captions: np.ndarray, guidance: float) -> np.ndarray:
        schedule = pair.ours.schedule
        out = generate(noise, captions, negative, guidance, schedule=schedule, method="dpm++")
        return np.asarray(out.frames)

    plain = frames(captions, 9.0)
    assert np.abs(frames(captions, 2.5) - plain).max() > 20 / 255
    assert np.abs(frames(captions[::-1], 9.0) - plain).max() > 20 / 255
