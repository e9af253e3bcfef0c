"""The VAE, which turns frames into latents."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from examples.simulated.run import Run, draw, held_out
from glfa_jax.convert import pretrained


def trained(run: Run) -> pretrained.Pretrained:
    """The VAE, stored below text-to-video."""
    architecture = {
        "_class_name": "AutoencoderKL",
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 4,
        "block_out_channels": [16, 32, 64, 64],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "act_fn": "silu",
        "sample_size": run.settings.size,
        "scaling_factor": 1.0,
    }
    module = pretrained.build("vae", architecture)

    def make(rng):
        return run.images(draw(rng, run.settings.vae.batch_size), rng)

    params = run.train("vae", "vae", module, loss_of(module), make)
    images = run.images(held_out(64), np.random.default_rng(0))
    encoded: Any = module.apply({"params": params}, images, method="encode")
    architecture["scaling_factor"] = round(float(1 / encoded.mean.std()), 5)
    vae = run.save("vae", run.folder / "vae", params, architecture)
    rebuilt = jax.jit(vae.module.apply)(vae.variables, images)
    error = float(jnp.square((jnp.clip(rebuilt, -1, 1) - images) / 2).mean())
    run.report("vae", psnr=-10 * np.log10(error))
    return vae


def loss_of(module: Any) -> Callable:
    """How far samples of the posterior are from what was encoded, and it from a standard normal."""

    def loss_fn(params, frozen, batch, key):
        variables = {"params": params}
        posterior: Any = module.apply(variables, batch, method="encode")
        decoded: Any = module.apply(variables, posterior.sample(key), method="decode")
        error = decoded - batch
        reconstruction = jnp.abs(error).mean() + jnp.square(error).mean()
        divergence = posterior.divergence().mean() / posterior.mean[0].size
        return reconstruction + 1e-4 * divergence, {
            "squared_error": jnp.square(error).mean(),
            "divergence": divergence,
        }

    return loss_fn
