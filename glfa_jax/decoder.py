"""The trained decoder: fMRI windows in, video out, as one jitted program (SPEC §4)."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from glfa_jax import config, subject_alignment, system
from glfa_jax.convert import pretrained
from glfa_jax.convert.pretrained import Pretrained
from glfa_jax.diffusion.guidance import guided
from glfa_jax.diffusion.sampler import sample
from glfa_jax.diffusion.schedule import Schedule


class Decoder(NamedTuple):
    encoder: Pretrained
    unet: Pretrained
    vae: Pretrained
    schedule: Schedule


Generate = Callable[..., Float[Array, "b f vheight vwidth 3"]]


def load_decoder(settings: config.Config) -> Decoder:
    """The model that stage 2 left in the run folder, with the foundation's VAE and schedule."""
    folder = system.model_folder(settings, "cotrain")
    generator = system.load_generator(settings)
    schedule = generator.schedule
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
    average training window in the common space (`subject_alignment.average_window`), which the
    samples are pushed away from. clip: (b,) int32; a clip's noise depends on it and on the seed
    alone, not on its place in a batch. scale: of guidance. Gives RGB in [-1, 1].
    """
    dtype = jnp.dtype(settings.hardware.compute_dtype)
    encoder, unet, vae = (
        model.module.clone(dtype=dtype) for model in (decoder.encoder, decoder.unet, decoder.vae)
    )
    encoder = encoder.clone(subjects=0)  # one program for all subjects: variables hold their layer
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
        aligned = encoder.apply(variables["encoder"], fmri.astype(jnp.float32), method="align")
        windows = jnp.concatenate([aligned, negative[None].astype(jnp.float32)])
        condition = encoder.apply(variables["encoder"], windows, method="encode").condition
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


def variables_of(
    decoder: Decoder, settings: config.Config, *, subjects: Iterable[str]
) -> dict[str, dict]:
    """All parameters for each subject, on the device; what does not differ is there once.

    Raises InputError for a subject that the run has no alignment layer for.
    """
    encoders = {
        subject: subject_alignment.encoder_for(settings, decoder.encoder, subject=subject).variables
        for subject in subjects
    }
    own = {"unet": decoder.unet.variables, "vae": decoder.vae.variables, "encoder": encoders}
    placed: dict[int, jax.Array] = {}

    def place(x: Any) -> jax.Array:
        if id(x) not in placed:
            placed[id(x)] = jax.device_put(x)
        return placed[id(x)]

    own = jax.tree.map(place, own)
    return {subject: own | {"encoder": own["encoder"][subject]} for subject in encoders}
