from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glfa_jax.diffusion.guidance import guided
from glfa_jax.diffusion.sampler import plan, sample
from glfa_jax.diffusion.schedule import MODELSCOPE, ScheduleError

DEVIATION = 0.6
NOISE = jax.random.normal(jax.random.key(0), (2, 2, 3, 3, 4))


def gaussian_denoiser(schedule):
    """The best possible prediction for data ~ N(0, DEVIATION²)."""

    def denoise(x, t):
        signal, spread = schedule.signal_and_noise(t)
        variance = (signal * DEVIATION) ** 2 + spread**2
        clean, noise = signal * DEVIATION**2 * x / variance, spread * x / variance
        if schedule.prediction_type == "epsilon":
            return noise
        return signal * noise - spread * clean

    return denoise


@partial(jax.jit, static_argnames=("schedule", "steps", "method"))
def run(noise, *, schedule, steps, method):
    return sample(gaussian_denoiser(schedule), noise, schedule=schedule, steps=steps, method=method)


# From the last training step to the first: only the solver's own error is left.
WHOLE = replace(
    MODELSCOPE,
    timestep_spacing="trailing",
    steps_offset=0,
    final_sigmas_type="sigma_min",
    set_alpha_to_one=False,
)


def deviation_error(schedule, steps, method):
    """Relative error of the samples' standard deviation, exact: the sampler is linear here."""
    latents = run(NOISE, schedule=schedule, steps=steps, method=method)
    # The probability flow keeps x_t over its own standard deviation constant.
    end, start = np.sqrt(1 + schedule.alphas_cumprod[[0, -1]] * (DEVIATION**2 - 1))
    ratio = np.asarray(latents / (NOISE * end / start))
    np.testing.assert_allclose(ratio, ratio.flat[0], rtol=1e-4)
    return abs(float(ratio.flat[0]) - 1)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(("method", "order"), [("dpm++", 1.5), ("ddim", 0.9)])
def test_a_gaussian_keeps_its_deviation_to_the_order_of_the_method(method, order, prediction_type):
    """Orders 2 and 1 in the limit; an error of lower order would show as 1 and 0."""
    schedule = replace(WHOLE, prediction_type=prediction_type)
    coarse, fine = (deviation_error(schedule, steps, method) for steps in (50, 200))
    assert fine < 0.02
    assert np.log(coarse / fine) / np.log(4) > order


@pytest.mark.parametrize(("method", "bound"), [("dpm++", 0.04), ("ddim", 0.07)])
def test_the_usual_thirty_steps_are_close_to_the_right_deviation(method, bound):
    assert deviation_error(replace(WHOLE, final_sigmas_type="zero"), 30, method) < bound


@pytest.mark.parametrize("method", ["dpm++", "ddim"])
def test_a_known_latent_is_reached_exactly(method):
    """Where the denoiser always points to one latent, so does the sampler."""
    wanted = jnp.linspace(-2, 2, NOISE.size).reshape(NOISE.shape)
    schedule = replace(MODELSCOPE, set_alpha_to_one=True)

    def denoise(x, t):
        signal, spread = schedule.signal_and_noise(t)
        return (x - signal * wanted) / spread

    latents = sample(denoise, NOISE, schedule=schedule, steps=10, method=method)
    np.testing.assert_allclose(latents, wanted, atol=2e-4)


def test_bfloat16_predictions_leave_the_latent_in_float32():
    latents = sample(
        lambda x, t: x.astype(jnp.bfloat16),
        NOISE.astype(jnp.bfloat16),
        schedule=MODELSCOPE,
        steps=3,
        method="dpm++",
    )
    assert latents.dtype == jnp.float32


@pytest.mark.parametrize(
    ("steps", "method", "message"),
    [(0, "ddim", "steps"), (1000, "dpm++", "steps"), (10, "euler", "dpm\\+\\+, ddim")],
)
def test_what_cannot_be_planned_is_rejected(steps, method, message):
    with pytest.raises(ValueError, match=message):
        plan(MODELSCOPE, steps=steps, method=method)


def test_ddim_rejects_to_read_a_clean_latent_off_pure_noise():
    schedule = replace(MODELSCOPE, timestep_spacing="trailing", steps_offset=0)
    with pytest.raises(ScheduleError, match="v_prediction"):
        plan(schedule.rescale_zero_terminal_snr(), steps=10, method="ddim")


CONDITION = jax.random.normal(jax.random.key(1), (2, 3, 4))
NEGATIVE = jax.random.normal(jax.random.key(2), (1, 3, 4))


def denoise_on_condition(x, t, condition):
    return jnp.tanh(x + condition.mean(axis=(1, 2))[:, None, None, None, None] + t * 1e-3)


@pytest.mark.parametrize("scale", [0.0, 1.0, 7.5])
def test_guidance_is_the_formula(scale):
    t = jnp.array(100)
    denoise = guided(denoise_on_condition, condition=CONDITION, negative=NEGATIVE, scale=scale)
    away = denoise_on_condition(NOISE, t, jnp.repeat(NEGATIVE, 2, axis=0))
    towards = denoise_on_condition(NOISE, t, CONDITION)
    np.testing.assert_allclose(
        denoise(NOISE, t), (1 - scale) * away + scale * towards, rtol=1e-5, atol=1e-5
    )


def test_guidance_calls_the_generator_once_a_step_and_compiles_once():
    calls = []

    def counted(x, t, condition):
        calls.append(x.shape)
        return denoise_on_condition(x, t, condition)

    @jax.jit
    def generate(noise, scale):
        denoise = guided(counted, condition=CONDITION, negative=NEGATIVE, scale=scale)
        return sample(denoise, noise, schedule=MODELSCOPE, steps=25, method="dpm++")

    first, second = generate(NOISE, 2.0), generate(NOISE, 9.0)
    assert not np.allclose(first, second)
    assert generate._cache_size() == 1
    # Traced, not run: once for the whole scan, on the doubled batch.
    assert calls == [(4, 2, 3, 3, 4)]


def test_a_negative_of_the_wrong_shape_is_rejected():
    with pytest.raises(ValueError, match="negative condition"):
        guided(denoise_on_condition, condition=CONDITION, negative=NEGATIVE[:, :2], scale=1.0)
