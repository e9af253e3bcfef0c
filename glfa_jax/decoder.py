"""The trained decoder: fMRI windows in, video out, as one jitted program (SPEC §4)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from glfa_jax import config, system
from glfa_jax.convert import pretrained
from glfa_jax.convert.pretrained import Pretrained
from glfa_jax.diffusion.guidance import guided
from glfa_jax.diffusion.sampler import sample
from glfa_jax.diffusion.schedule import Schedule
from glfa_jax.errors import InputError
from glfa_jax.training.checkpoints import read_done


class Decoder(NamedTuple):
    encoder: Pretrained
    unet: Pretrained
    vae: Pretrained
    schedule: Schedule


Generate = Callable[..., Float[Array, "b f vheight vwidth 3"]]


def refuse_unfinished(settings: config.Config) -> None:
    """Raises InputError where `load_decoder` would find no model, or one of another length."""
    last = "lea" if settings.method == "lea" else "cotrain"
    finished = system.model_folder(settings, last).is_dir()
    if last == "cotrain":
        done = read_done(settings.run_dir / last)
        finished = finished and done is not None and done.step == settings.cotrain.steps
    if not finished:
        what = "the regression" if last == "lea" else "stage 2"
        raise InputError(
            f"{settings.run_dir}: {what} is not finished; run python -m train.cotrain with this "
            "configuration first"
        )


def load_decoder(settings: config.Config) -> Decoder:
    """The model that training left in the run folder, with the foundation's VAE and schedule.

    With method `lea` the UNet is the foundation's as well, and its schedule as it is.
    """
    generator = system.load_generator(settings)
    schedule = generator.schedule
    if settings.method == "lea":
        encoder = pretrained.load("lea", system.model_folder(settings, "lea"))
        return Decoder(encoder, generator.unet, generator.vae, schedule)
    folder = system.model_folder(settings, "cotrain")
    if settings.cotrain.zero_terminal_snr:
        schedule = schedule.rescale_zero_terminal_snr()
    return Decoder(
        encoder=pretrained.load("fmri_encoder", folder / "encoder"),
        unet=pretrained.load("unet3d", folder / "unet"),
        vae=generator.vae,
        schedule=schedule,
    )


def generator_of(decoder: Decoder, settings: config.Config) -> Generate:
    """`generate(variables, fmri, negative, clip, scale)`, compiled once.

    variables: of `variables_of`. fmri: (b, w, height, width). negative: (w, height, width), the
    average training window, which the samples are pushed away from. clip: (b,) int32; a clip's
    noise depends on it and on the seed alone, not on its place in a batch. scale: of guidance.
    Gives RGB in [-1, 1].
    """
    dtype = jnp.dtype(settings.hardware.compute_dtype)
    encoder, unet, vae = (
        model.module.clone(dtype=dtype) for model in (decoder.encoder, decoder.unet, decoder.vae)
    )
    factor = 2 ** (len(vae.block_out_channels) - 1)
    height, width = (side // factor for side in settings.data.resolution)
    shape = (settings.data.frames, height, width, unet.in_channels)
    root = jax.random.key(settings.seed)

    @jax.jit
    def generate(
        variables: dict,
        fmri: Float[Array, "b w height width"],
        negative: Float[Array, "w height width"],
        clip: Int[Array, " b"],
        scale: Float[Array, ""],
    ) -> Float[Array, "b f vheight vwidth 3"]:
        windows = jnp.concatenate([fmri, negative[None]]).astype(jnp.float32)
        condition = encoder.apply(variables["encoder"], windows).condition
        denoise = guided(
            lambda x, t, c: unet.apply(variables["unet"], x, t, c),
            condition=condition[:-1],
            negative=condition[-1:],
            scale=scale,
        )
        noise = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(root, i), shape))(clip)
        latents = sample(
            denoise,
            noise,
            schedule=decoder.schedule,
            steps=settings.evaluation.sampling_steps,
            method=settings.evaluation.sampler,
        )
        video = vae.apply(variables["vae"], vae.from_diffusion(latents), method="decode")
        return jnp.clip(video, -1, 1)

    return generate


def variables_of(decoder: Decoder) -> dict:
    """All parameters, on the device."""
    return jax.device_put(
        {
            "encoder": decoder.encoder.variables,
            "unet": decoder.unet.variables,
            "vae": decoder.vae.variables,
        }
    )
