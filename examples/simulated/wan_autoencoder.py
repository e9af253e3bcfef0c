"""Wan's autoencoder, which turns clips into latents: first on single frames, then on clips."""

from typing import Any

import jax
import numpy as np

from examples.simulated.autoencoder import loss_of
from examples.simulated.run import Run, draw, held_out
from examples.simulated.settings import Wan
from glfa_jax.convert import pretrained

CHANNELS = 8  # of latents


def trained(run: Run[Wan]) -> pretrained.Pretrained:
    """The VAE, stored below text-to-video."""
    architecture = {
        "_class_name": "AutoencoderKLWan",
        "base_dim": 16,
        "z_dim": CHANNELS,
        "dim_mult": [1, 2, 4, 4],
        "num_res_blocks": 1,
        "attn_scales": [],
        "temperal_downsample": [False, True, True],
        "dropout": 0.0,
        "latents_mean": [0.0] * CHANNELS,
        "latents_std": [1.0] * CHANNELS,
    }
    module = pretrained.build("wan_vae", architecture)
    loss = loss_of(module)

    def make_images(rng):
        return run.images(draw(rng, run.settings.vae_images.batch_size), rng)[:, None]

    def make_clips(rng):
        return run.videos(draw(rng, run.settings.vae.batch_size))

    # Images first, as Wan's was trained: a frame costs a ninth of a clip and teaches all but what
    # frames have in common.
    images = run.train("vae_images", "wan_vae", module, loss, make_images)
    params = run.train(
        "vae", "wan_vae", module, loss, make_clips, init=jax.tree.map(inflated, images)
    )
    video = run.videos(held_out(64))
    encoded: Any = jax.jit(lambda x: module.apply({"params": params}, x, method="encode"))(video)
    latents = np.asarray(encoded.mean).reshape(-1, CHANNELS)
    architecture["latents_mean"] = np.round(latents.mean(0).astype(float), 4).tolist()
    architecture["latents_std"] = np.round(latents.std(0).astype(float), 4).tolist()
    vae = run.save("wan_vae", run.folder / "vae", params, architecture)
    rebuilt = jax.jit(vae.module.apply)(vae.variables, video)
    errors = np.square((np.asarray(rebuilt, float) - video) / 2).mean((0, 2, 3, 4))
    run.report(
        "vae",
        psnr=-10 * np.log10(errors.mean()),
        psnr_of_first_frames=-10 * np.log10(errors[0]),
    )
    return vae


def inflated(kernel: np.ndarray) -> np.ndarray:
    """A kernel over time that does with every frame what it does with the first of a clip.

    Of what was trained on single frames, taps of earlier frames are as they were drawn.
    """
    if kernel.ndim != 5:
        return kernel
    of_clips = np.zeros_like(kernel)
    of_clips[-1] = kernel[-1]
    if kernel.shape[1:3] == (1, 1):  # halves or doubles the frames, and has not been trained
        width, made = kernel.shape[3:]
        of_clips[-1] = np.tile(np.eye(width), made // width)
    return of_clips
