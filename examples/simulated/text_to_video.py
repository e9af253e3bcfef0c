"""The text-to-video UNet3D, first on images, then on clips with its text encoder."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from examples.simulated.clip_model import TextEncoder
from examples.simulated.run import WIDTH, Run, draw, held_out, labels, write_json
from glfa_jax.convert import pretrained
from glfa_jax.diffusion.guidance import guided
from glfa_jax.diffusion.sampler import sample
from glfa_jax.diffusion.schedule import MODELSCOPE, noise_like
from glfa_jax.simulate import stimuli

_SNR_GAMMA = 5.0  # weights of the generator's loss, as arXiv 2303.09556 recommends


class Generator(NamedTuple):
    """The stored parts of the text-to-video model."""

    vae: pretrained.Pretrained
    text: pretrained.Pretrained
    unet: pretrained.Pretrained


def trained(run: Run, vae: pretrained.Pretrained, text: TextEncoder) -> Generator:
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
    means, deviations, captions = _latents(run, vae)

    def make(rng, stage, frames):
        """`frames` of a clip: all in order, or one at random."""
        picks = rng.integers(len(means), size=stage.batch_size)
        drop = rng.random(stage.batch_size) < settings.unconditional
        texts = [
            "" if dropped else captions[i][rng.integers(len(captions[i]))]
            for i, dropped in zip(picks, drop, strict=True)
        ]
        first = 0 if frames == settings.frames else rng.integers(settings.frames)
        window = np.s_[picks, first : first + frames]
        noise = rng.standard_normal(means[window].shape, np.float32)
        latents = means[window] + deviations[window] * noise
        return {"latents": latents, "tokens": run.tokenize(texts)}

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
        partial(make, stage=settings.generator_images, frames=1),
        frozen=text.model.variables,
    )
    # CLIP learns from single frames and so hardly tells left from right: with the clips the
    # generator's own text encoder learns on.
    params = run.train(
        "generator",
        "unet3d",
        module,
        clips_loss,
        partial(make, stage=settings.generator, frames=settings.frames),
        init={"unet": unet_params, "text": text.model.variables["params"]},
    )
    encoder = run.save("clip_text", run.folder / "text_encoder", params["text"], text.architecture)
    unet = run.save("unet3d", run.folder / "unet", params["unet"], architecture)
    (run.folder / "scheduler").mkdir(exist_ok=True)
    write_json(run.folder / "scheduler" / "scheduler_config.json", schedule.to_config())
    write_json(
        run.folder / "model_index.json",
        {
            "_class_name": "TextToVideoSDPipeline",
            "scheduler": ["diffusers", "DDIMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet3DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )
    return Generator(vae, encoder, unet)


def _latents(
    run: Run, vae: pretrained.Pretrained
) -> tuple[np.ndarray, np.ndarray, list[list[str]]]:
    """Posterior means and deviations of many clips, and four captions of each; encoded once."""
    rng = np.random.default_rng(run.settings.seed)
    scenes = draw(rng, run.settings.clips)
    captions = [[stimuli.caption(scene, rng) for _ in range(4)] for scene in scenes]
    cache = run.settings.run_dir / "latents.npz"
    if cache.exists():
        with np.load(cache) as arrays:
            return arrays["mean"], arrays["deviation"], captions
    encode = jax.jit(lambda x: vae.module.apply(vae.variables, x, method="encode"))
    parts = []
    for start in range(0, len(scenes), 64):
        posterior = jax.device_get(encode(run.videos(scenes[start : start + 64])))
        parts.append((posterior.mean, np.exp(0.5 * posterior.log_variance)))
    means, deviations = (np.concatenate(part) for part in zip(*parts, strict=True))
    aside = cache.with_suffix(".partial.npz")
    np.savez(aside, mean=means, deviation=deviations)
    aside.rename(cache)
    return means, deviations, captions


def evaluate(
    run: Run,
    generator: Generator,
    image_classifier: pretrained.Pretrained,
    video_classifier: pretrained.Pretrained,
) -> None:
    """From captions alone: do the classifiers see in the samples what the captions say?"""
    clips = 64
    scenes = held_out(clips)
    captions = [stimuli.caption(scene) for scene in scenes]
    tokens = run.tokenize(captions)
    side = run.settings.size // 8
    vae, text, unet = generator

    @jax.jit
    def generate(key, scale):
        encode = text.module.apply
        condition = encode(text.variables, tokens).hidden
        negative = encode(text.variables, run.tokenize([""])).hidden
        denoise = guided(
            lambda x, t, c: unet.module.apply(unet.variables, x, t, c),
            condition=condition,
            negative=negative,
            scale=scale,
        )
        noise = jax.random.normal(key, (clips, run.settings.frames, side, side, 4))
        latents = sample(denoise, noise, schedule=MODELSCOPE, steps=25, method="dpm++")
        return vae.module.apply(vae.variables, vae.module.from_diffusion(latents), method="decode")

    def classes(model: pretrained.Pretrained, x: jax.Array) -> np.ndarray:
        return np.asarray(jax.jit(model.module.apply)(model.variables, x)).argmax(-1)

    video = jnp.clip(generate(jax.random.key(run.settings.seed), 5.0), -1, 1)
    predicted, frame = classes(video_classifier, video), classes(image_classifier, video[:, 2])
    wanted = labels(stimuli.video_label, scenes)
    colour = labels(stimuli.frame_label, scenes)
    run.report(
        "generator",
        category=float((predicted // 8 == wanted // 8).mean()),
        motion=float((predicted % 8 == wanted % 8).mean()),
        colour=float((frame % 8 == colour % 8).mean()),
        chance=1 / 8,
        clips=clips,
    )
    np.savez_compressed(
        run.settings.run_dir / "samples.npz",
        video=np.round((np.asarray(video) + 1) * 127.5).astype(np.uint8),
        captions=captions,
    )
