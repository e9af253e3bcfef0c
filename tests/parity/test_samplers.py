"""The samplers against diffusers' schedulers, on a denoiser written in both languages."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from glfa_jax.diffusion.sampler import plan, sample
from glfa_jax.diffusion.schedule import MODELSCOPE

THEIRS = {"dpm++": DPMSolverMultistepScheduler, "ddim": DDIMScheduler}
NOISE = np.random.default_rng(7).standard_normal((2, 3, 4, 4, 4), dtype=np.float32)
VARIANTS = {
    "as_published": {},
    "leading": {"timestep_spacing": "leading"},
    "trailing": {"timestep_spacing": "trailing", "steps_offset": 0},
    "linspace": {"timestep_spacing": "linspace", "steps_offset": 0, "set_alpha_to_one": True},
    "sigma_min": {"final_sigmas_type": "sigma_min"},
    "sigma_min_second_order": {"final_sigmas_type": "sigma_min", "lower_order_final": False},
}


def denoise_jax(x, t):
    return 0.7 * jnp.tanh(1.3 * x + jnp.sin(t * 0.01)) + 0.2 * x * jnp.cos(t * 0.003)


def denoise_torch(x, t):
    t = t.to(torch.float32)
    return 0.7 * torch.tanh(1.3 * x + torch.sin(t * 0.01)) + 0.2 * x * torch.cos(t * 0.003)


@partial(jax.jit, static_argnames=("schedule", "steps", "method"))
def ours(noise, *, schedule, steps, method):
    return sample(denoise_jax, noise, schedule=schedule, steps=steps, method=method)


def theirs(schedule, steps, method, dtype=torch.float32):
    scheduler = THEIRS[method].from_config(schedule.to_config())
    scheduler.set_timesteps(steps)
    x = torch.tensor(NOISE, dtype=dtype)
    for t in scheduler.timesteps:
        x = scheduler.step(denoise_torch(x, t), t, x).prev_sample
    return x.numpy()


@pytest.mark.parametrize("steps", [10, 25, 30])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("method", ["dpm++", "ddim"])
def test_latents_equal_diffusers(method, prediction_type, steps):
    schedule = replace(MODELSCOPE, prediction_type=prediction_type)
    latents = ours(NOISE, schedule=schedule, steps=steps, method=method)
    np.testing.assert_allclose(latents, theirs(schedule, steps, method), rtol=0, atol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("method", ["dpm++", "ddim"])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_every_option_equals_diffusers(method, variant, zero_snr):
    schedule = replace(MODELSCOPE, prediction_type="v_prediction", **VARIANTS[variant])
    if zero_snr:
        schedule = schedule.rescale_zero_terminal_snr()
    latents = ours(NOISE, schedule=schedule, steps=12, method=method)
    np.testing.assert_allclose(latents, theirs(schedule, 12, method), rtol=0, atol=1e-4)


@pytest.mark.parametrize("spacing", [None, "linspace", "leading", "trailing"])
@pytest.mark.parametrize("method", ["dpm++", "ddim"])
def test_timesteps_equal_diffusers(method, spacing):
    schedule = replace(MODELSCOPE, timestep_spacing=spacing, steps_offset=0)
    scheduler = THEIRS[method].from_config(schedule.to_config())
    for steps in (1, 2, 7, 10, 15, 16, 25, 30, 49, 50, 77, 100, 333, 500):
        scheduler.set_timesteps(steps)
        np.testing.assert_array_equal(
            plan(schedule, steps=steps, method=method).t, scheduler.timesteps.numpy()
        )


def test_noise_prediction_at_zero_terminal_snr_equals_diffusers():
    schedule = MODELSCOPE.rescale_zero_terminal_snr()
    latents = ours(NOISE, schedule=schedule, steps=25, method="dpm++")
    expected = theirs(schedule, 25, "dpm++")
    np.testing.assert_allclose(
        latents / abs(expected).max(), expected / abs(expected).max(), atol=1e-4
    )
