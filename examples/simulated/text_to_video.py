"""The text-to-video UNet3D, first on images, then on clips with its text encoder."""

from typing import Any

import jax
import jax.numpy as jnp

from examples.simulated.clip_model import TextEncoder
from examples.simulated.latents import CaptionedLatents
from examples.simulated.run import WIDTH, Run, write_pipeline
from examples.simulated.settings import Foundation
from glfa_jax.convert import pretrained
from glfa_jax.diffusion.schedule import MODELSCOPE, noise_like

_SNR_GAMMA = 5.0  # weights of the generator's loss, as arXiv 2303.09556 recommends


def train(run: Run[Foundation], vae: pretrained.Pretrained, text: TextEncoder) -> None:
    """Stores UNet, text encoder and schedule below text-to-video."""
    settings = run.settings
    architecture = {
        "_class_name": "UNet3DConditionModel",
        "in_channels": 4,
        "out_channels": 4,
        "sample_size": settings.size // 8,
        "block_out_channels": [32, 64],
        "down_block_types": ["DownBlock3D", "CrossAttnDownBlock3D"],
        "up_block_types": ["CrossAttnUpBlock3D", "UpBlock3D"],
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 8,
    }
    module = pretrained.build("unet3d", architecture)
    schedule = MODELSCOPE
    clips = CaptionedLatents(run, vae)

    def make_images(rng):
        return clips.batch(rng, settings.generator_images.batch_size, one_frame="any")

    def make_clips(rng):
        return clips.batch(rng, settings.generator.batch_size)

    def denoising_loss(unet_params, text_variables, batch, key, over_time):
        noise_key, time_key = jax.random.split(key)
        latents = vae.module.to_diffusion(batch["latents"])
        # What moves where is decided while there is still much noise: clips see more of it.
        part = jax.random.uniform(time_key, (len(latents),))
        part = jnp.sqrt(part) if over_time else part
        t = jnp.floor(schedule.num_train_timesteps * part).astype(jnp.int32)
        noise = noise_like(noise_key, latents, offset_strength=0.0)
        encoded: Any = text.model.module.apply(text_variables, batch["tokens"])
        noisy = schedule.add_noise(latents, noise=noise, t=t)
        prediction: Any = module.apply(
            {"params": unet_params}, noisy, t, encoded.hidden, over_time=over_time
        )
        target = schedule.target(latents, noise=noise, t=t)
        error = jnp.square(prediction - target).mean((1, 2, 3, 4))
        weight = schedule.min_snr_weight(t, gamma=_SNR_GAMMA)
        if over_time:
            # Under much noise an error of the noise is a large one of the clip: count both.
            weight = weight + 1 / schedule.signal_to_noise(t)
        return (weight * error).mean(), {}

    def images_loss(params, frozen, batch, key):
        return denoising_loss(params, frozen, batch, key, over_time=False)

    def clips_loss(params, frozen, batch, key):
        return denoising_loss(
            params["unet"], {"params": params["text"]}, batch, key, over_time=True
        )

    # Images first, as ModelScope began from a text-to-image model: an image costs a tenth
    # of a clip and teaches all but motion.
    unet_params = run.train(
        "generator_images",
        "unet3d",
        module,
        images_loss,
        make_images,
        frozen=text.model.variables,
    )
    # CLIP learns from single frames and so hardly tells left from right: with the clips the
    # generator's own text encoder learns on.
    params = run.train(
        "generator",
        "unet3d",
        module,
        clips_loss,
        make_clips,
        init={"unet": unet_params, "text": text.model.variables["params"]},
    )
    run.save("clip_text", run.folder / "text_encoder", params["text"], text.architecture)
    run.save("unet3d", run.folder / "unet", params["unet"], architecture)
    write_pipeline(
        run.folder,
        schedule.to_config(),
        {
            "_class_name": "TextToVideoSDPipeline",
            "scheduler": ["diffusers", "DDIMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet3DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )
