"""Flow matching against diffusers: schedule, samplers, and the files that describe them."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from glfa_jax.diffusion.flow import FlowSchedule
from glfa_jax.diffusion.sampler import plan
from glfa_jax.diffusion.steps import walk

NOISE = np.random.default_rng(7).standard_normal((2, 3, 4, 4, 4), dtype=np.float32)
# The scheduler's file of Wan-AI/Wan2.1-T2V-1.3B-Diffusers.
PUBLISHED = {
    "_class_name": "UniPCMultistepScheduler",
    "_diffusers_version": "0.33.0.dev0",
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "disable_corrector": [],
    "dynamic_thresholding_ratio": 0.995,
    "final_sigmas_type": "zero",
    "flow_shift": 3.0,
    "lower_order_final": True,
    "num_train_timesteps": 1000,
    "predict_x0": True,
    "prediction_type": "flow_prediction",
    "rescale_betas_zero_snr": False,
    "sample_max_value": 1.0,
    "solver_order": 2,
    "solver_p": None,
    "solver_type": "bh2",
    "steps_offset": 0,
    "thresholding": False,
    "timestep_spacing": "linspace",
    "trained_betas": None,
    "use_beta_sigmas": False,
    "use_exponential_sigmas": False,
    "use_flow_sigmas": True,
    "use_karras_sigmas": False,
}


def denoise_jax(x, t):
    return 0.7 * jnp.tanh(1.3 * x + jnp.sin(t * 0.01)) + 0.2 * x * jnp.cos(t * 0.003)


def denoise_torch(x, t):
    t = t.to(torch.float32)
    return 0.7 * torch.tanh(1.3 * x + torch.sin(t * 0.01)) + 0.2 * x * torch.cos(t * 0.003)


walked = jax.jit(partial(walk, denoise_jax))  # the table is an argument: few programs


def ours(schedule, steps, method):
    return walked(NOISE, plan(schedule, steps=steps, method=method))


def scheduler_of(schedule, method):
    if method == "unipc":
        return UniPCMultistepScheduler.from_config(schedule.to_config())
    total = schedule.num_train_timesteps
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=total, shift=schedule.shift)


def theirs(schedule, steps, method):
    scheduler = scheduler_of(schedule, method)
    scheduler.set_timesteps(steps)
    scheduler.set_begin_index(0)  # as WanPipeline does: whole times may come twice
    x = torch.tensor(NOISE)
    for t in scheduler.timesteps:
        x = scheduler.step(denoise_torch(x, t), t, x).prev_sample
    return x.numpy()


@pytest.mark.parametrize("shift", [1, 3.0, 5.0])
@pytest.mark.parametrize("method", ["unipc", "euler"])
def test_latents_equal_diffusers(method, shift):
    schedule = FlowSchedule(shift=shift)
    for steps in (1, 2, 3, 10, 30):
        latents, expected = (found(schedule, steps, method) for found in (ours, theirs))
        np.testing.assert_allclose(latents, expected, rtol=0, atol=1e-5, err_msg=str(steps))


@pytest.mark.parametrize("disabled", [(0,), (0, 1, 4), (6, 99)])
def test_steps_without_the_corrector_equal_diffusers(disabled):
    schedule = FlowSchedule(shift=3.0, disable_corrector=disabled)
    latents = ours(schedule, 10, "unipc")
    np.testing.assert_allclose(latents, theirs(schedule, 10, "unipc"), rtol=0, atol=1e-5)
    assert abs(latents - ours(FlowSchedule(shift=3.0), 10, "unipc")).max() > 1e-4


@pytest.mark.parametrize("shift", [1.0, 3.0, 12.0])
@pytest.mark.parametrize("method", ["unipc", "euler"])
def test_times_equal_diffusers(method, shift):
    for total in (100, 1000):
        schedule = FlowSchedule(total, shift)
        scheduler = scheduler_of(schedule, method)
        for steps in (1, 2, 7, 10, 15, 16, 25, 30, 49, 50, 77, 99, total // 2, total - 1):
            scheduler.set_timesteps(steps)
            times = np.asarray(plan(schedule, steps=steps, method=method).t)
            assert len(times) == len(scheduler.timesteps)
            np.testing.assert_allclose(times, scheduler.timesteps.numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_noising_equals_diffusers(shift):
    schedule = FlowSchedule(shift=shift)
    scheduler = scheduler_of(schedule, "euler")
    x, noise = np.random.default_rng(0).standard_normal((2, 5, 2, 3, 3, 4), dtype=np.float32)
    t = scheduler.timesteps[[0, 1, 420, 980, 999]]
    expected = scheduler.scale_noise(torch.tensor(x), t, torch.tensor(noise))
    noisy = schedule.add_noise(x, noise=noise, t=t.numpy())
    np.testing.assert_allclose(noisy, expected.numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["unipc", "euler"])
def test_one_step_along_the_target_is_the_clean_latent_in_both(method):
    """So what is trained is what both walk along."""
    schedule = FlowSchedule(shift=3.0)
    clean = np.random.default_rng(1).standard_normal(NOISE.shape, dtype=np.float32)
    scheduler = scheduler_of(schedule, method)
    scheduler.set_timesteps(1)
    target = schedule.target(clean, noise=NOISE)
    t = scheduler.timesteps[0]
    reached = scheduler.step(torch.tensor(target), t, torch.tensor(NOISE)).prev_sample
    np.testing.assert_allclose(reached.numpy(), clean, rtol=0, atol=1e-5)


def test_files_are_read_as_diffusers_reads_them(tmp_path):
    assert FlowSchedule.from_config(PUBLISHED) == FlowSchedule(shift=3.0)
    for theirs in (
        UniPCMultistepScheduler.from_config(PUBLISHED),
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        # Keeps what it does not know, and does not read flow_shift.
        FlowMatchEulerDiscreteScheduler.from_config(PUBLISHED, shift=3.0),
    ):
        theirs.save_pretrained(tmp_path)
        saved = json.loads((tmp_path / "scheduler_config.json").read_text())
        assert FlowSchedule.from_config(saved) == FlowSchedule(shift=3.0)
    own = FlowSchedule(500, 2.5, (0, 3))
    (tmp_path / "scheduler_config.json").write_text(json.dumps(own.to_config()))
    read = UniPCMultistepScheduler.from_pretrained(tmp_path)
    for key, value in own.to_config().items():
        if not key.startswith("_"):
            assert read.config[key] == value, key
