"""Wan's transformer, by flow matching, with the text encoder whose tokens it reads."""

from typing import Any

import jax
import jax.numpy as jnp

from examples.simulated.latents import CaptionedLatents
from examples.simulated.run import WIDTH, Run, write_pipeline
from examples.simulated.settings import Wan
from examples.simulated.t5_tokenizer import vocabulary_size
from examples.simulated.wan_autoencoder import CHANNELS
from glfa_jax.convert import pretrained
from glfa_jax.diffusion.flow import FlowSchedule

_HEADS, _HEAD = 4, 40


def train(run: Run[Wan], vae: pretrained.Pretrained) -> None:
    """Stores transformer, text encoder and schedule below text-to-video."""
    text_architecture = {
        "model_type": "umt5",
        "architectures": ["UMT5EncoderModel"],
        "vocab_size": vocabulary_size(run.folder / "tokenizer"),
        "d_model": WIDTH,
        "d_kv": WIDTH // 4,
        "d_ff": 2 * WIDTH,
        "num_heads": 4,
        "num_layers": 2,
        "feed_forward_proj": "gated-gelu",
        "pad_token_id": 0,
        "eos_token_id": 1,
    }
    architecture = {
        "_class_name": "WanTransformer3DModel",
        "num_attention_heads": _HEADS,
        "attention_head_dim": _HEAD,
        "ffn_dim": 2 * _HEADS * _HEAD,
        "num_layers": 6,
        "in_channels": CHANNELS,
        "out_channels": CHANNELS,
        "text_dim": WIDTH,
        "freq_dim": 64,
        "patch_size": [1, 2, 2],
        "qk_norm": "rms_norm_across_heads",
        "cross_attn_norm": True,
    }
    module = pretrained.build("wan", architecture)
    text = pretrained.build("umt5_text", text_architecture)
    schedule = FlowSchedule(shift=3.0)  # as published for small videos
    clips = CaptionedLatents(run, vae)

    def loss_fn(params, frozen, batch, key):
        noise_key, time_key = jax.random.split(key)
        latents = vae.module.to_diffusion(batch["latents"])
        t = schedule.times(time_key, len(latents))
        noise = jax.random.normal(noise_key, latents.shape)
        encoded: Any = text.apply({"params": params["text"]}, batch["tokens"])
        noisy = schedule.add_noise(latents, noise=noise, t=t)
        velocity: Any = module.apply({"params": params["transformer"]}, noisy, t, encoded.hidden)
        return jnp.square(velocity - schedule.target(latents, noise=noise)).mean(), {}

    def init(key):
        keys = jax.random.split(key)
        return {
            "transformer": run.initial("wan", module, keys[0]),
            "text": run.initial("umt5_text", text, keys[1]),
        }

    def make_images(rng):
        return clips.batch(rng, run.settings.generator_images.batch_size, one_frame="first")

    def make_clips(rng):
        return clips.batch(rng, run.settings.generator.batch_size)

    # Images first: one costs half a clip and teaches all but motion.
    images = run.train("generator_images", "wan", module, loss_fn, make_images, init=init)
    params = run.train("generator", "wan", module, loss_fn, make_clips, init=images)
    run.save("umt5_text", run.folder / "text_encoder", params["text"], text_architecture)
    run.save("wan", run.folder / "transformer", params["transformer"], architecture)
    write_pipeline(
        run.folder,
        schedule.to_config(),
        {
            "_class_name": "WanPipeline",
            "scheduler": ["diffusers", "UniPCMultistepScheduler"],
            "text_encoder": ["transformers", "UMT5EncoderModel"],
            "tokenizer": ["transformers", "T5TokenizerFast"],
            "transformer": ["diffusers", "WanTransformer3DModel"],
            "vae": ["diffusers", "AutoencoderKLWan"],
        },
    )
