"""The noise schedule against diffusers."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from glfa_jax.diffusion.schedule import MODELSCOPE, Schedule

LINEAR = Schedule(1000, 0.0001, 0.02, "linear", "v_prediction")
SCHEDULES = {
    "modelscope": MODELSCOPE,
    "zero_snr": MODELSCOPE.rescale_zero_terminal_snr(),
    "linear": LINEAR,
    "short": Schedule(100, 0.00085, 0.012, "scaled_linear"),
}


@pytest.fixture(params=SCHEDULES, name="pair")
def pair_of_schedules(request):
    schedule = SCHEDULES[request.param]
    return schedule, DDPMScheduler.from_config(schedule.to_config())


def test_betas_equal_diffusers(pair):
    ours, theirs = pair
    # Diffusers works in float32: rescaled betas, 1 − ᾱ_t/ᾱ_{t−1}, are off by 7e-6 at the end.
    np.testing.assert_allclose(ours.betas, theirs.betas.numpy(), rtol=0, atol=1e-5)


def test_alphas_cumprod_equal_diffusers(pair):
    ours, theirs = pair
    np.testing.assert_allclose(ours.alphas_cumprod, theirs.alphas_cumprod.numpy(), atol=1e-6)


def test_zero_terminal_snr_ends_in_pure_noise_exactly():
    rescaled = MODELSCOPE.rescale_zero_terminal_snr()
    assert rescaled.alphas_cumprod[-1] == 0
    assert rescaled.alphas_cumprod[0] == pytest.approx(MODELSCOPE.alphas_cumprod[0], rel=1e-12)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_noising_and_velocity_equal_diffusers(pair, prediction_type):
    ours, theirs = pair
    rng = np.random.default_rng(0)
    x, noise = rng.standard_normal((2, 5, 2, 3, 3, 4), dtype=np.float32)
    t = np.array([0, 1, 42, 98, 99]) * (ours.num_train_timesteps - 1) // 99
    noisy = ours.add_noise(jnp.asarray(x), noise=jnp.asarray(noise), t=jnp.asarray(t))
    their_args = torch.tensor(x), torch.tensor(noise), torch.tensor(t)
    np.testing.assert_allclose(noisy, theirs.add_noise(*their_args).numpy(), rtol=0, atol=1e-5)

    velocity = Schedule(**vars(ours) | {"prediction_type": "v_prediction"}).target(
        jnp.asarray(x), noise=jnp.asarray(noise), t=jnp.asarray(t)
    )
    np.testing.assert_allclose(
        velocity, theirs.get_velocity(*their_args).numpy(), rtol=0, atol=1e-5
    )


def test_a_written_file_is_read_by_diffusers_as_it_was_meant(tmp_path):
    schedule = Schedule(**vars(MODELSCOPE) | {"prediction_type": "v_prediction"})
    (tmp_path / "scheduler_config.json").write_text(json.dumps(schedule.to_config()))
    theirs = DDIMScheduler.from_pretrained(tmp_path)
    for key, value in schedule.to_config().items():
        if not key.startswith("_"):
            assert theirs.config[key] == value, key
    # And back: what diffusers saves, we read. It writes its own default spacing out.
    theirs.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "scheduler_config.json").read_text())
    assert Schedule.from_config(saved) == Schedule(
        **vars(schedule) | {"timestep_spacing": "leading"}
    )
