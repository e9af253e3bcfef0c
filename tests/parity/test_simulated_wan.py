"""The committed small Wan is what diffusers takes it for: captions to frames, with guidance."""

from functools import partial
from pathlib import Path

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from glfa_jax.convert.directory import read_config, read_tensors
from glfa_jax.convert.pretrained import in_memory
from glfa_jax.data.captions import Tokenizer
from glfa_jax.diffusion.guidance import guided
from glfa_jax.generators.wan import WanGenerator

FOLDER = Path(__file__).parents[2] / "foundation" / "simulated_wan" / "text-to-video"
CAPTIONS = ["a small red ball moves to the left over the sea", "A BIG bird &amp; a tree"]
STEPS, TOKENS, SCALE = 4, 20, 3.0


def read(kind: type, folder: Path) -> torch.nn.Module:
    """In float32; `from_pretrained` reads Wan only where accelerate is installed."""
    model = kind.from_config(read_config(folder))
    tensors = {name: torch.tensor(np.float32(x)) for name, x in read_tensors(folder).items()}
    model.load_state_dict(tensors)
    return model.eval()


def test_captions_become_the_same_frames() -> None:
    pipeline = diffusers.WanPipeline(
        tokenizer=transformers.T5TokenizerFast.from_pretrained(FOLDER / "tokenizer"),
        text_encoder=transformers.UMT5EncoderModel.from_pretrained(
            FOLDER / "text_encoder", dtype=torch.float32
        ),
        transformer=read(diffusers.WanTransformer3DModel, FOLDER / "transformer"),
        vae=read(diffusers.AutoencoderKLWan, FOLDER / "vae"),
        scheduler=diffusers.UniPCMultistepScheduler.from_pretrained(FOLDER / "scheduler"),
    )
    pipeline.set_progress_bar_config(disable=True)
    generator = WanGenerator.open(FOLDER)
    shape = generator.latent_shape(5, 64, 64)
    noise = np.random.default_rng(0).standard_normal((2, *shape), np.float32)
    wanted = pipeline(
        CAPTIONS,
        negative_prompt="",
        height=64,
        width=64,
        num_frames=5,
        num_inference_steps=STEPS,
        guidance_scale=SCALE,
        latents=torch.from_numpy(np.moveaxis(noise, -1, 1).copy()),
        max_sequence_length=TOKENS,
        output_type="np",
    ).frames

    text, tokenize = (
        in_memory(generator.load_text_encoder()),
        Tokenizer.load(FOLDER / "tokenizer", length=TOKENS),
    )
    denoiser, codec = in_memory((generator.load(), generator.load_codec()))

    @jax.jit
    def generate(tokens, noise):
        condition = text.module.apply(text.variables, tokens).hidden
        denoise = guided(
            partial(generator.denoise, denoiser),
            condition=condition[:-1],
            negative=condition[-1:],
            scale=SCALE,
        )
        latents = generator.sample(denoise, noise, steps=STEPS, method="unipc")
        return (jnp.clip(generator.decode(codec, latents), -1, 1) + 1) / 2

    with jax.default_matmul_precision("highest"):
        got = generate(tokenize([*CAPTIONS, ""]), noise)
    assert wanted.std() > 0.1
    assert np.abs(np.asarray(got) - wanted).max() < 2 / 255
