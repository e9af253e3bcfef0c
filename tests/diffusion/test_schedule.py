import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glfa_jax.diffusion.schedule import MODELSCOPE, Schedule, ScheduleError, noise_like

# The file published with ModelScope text-to-video, as far as it describes the schedule.
PUBLISHED = {
    "_class_name": "DDIMScheduler",
    "_diffusers_version": "0.15.0.dev0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "clip_sample_range": 1.0,
    "dynamic_thresholding_ratio": 0.995,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "thresholding": False,
    "trained_betas": None,
}


def test_the_published_file_is_read():
    assert Schedule.from_config(PUBLISHED) == MODELSCOPE


def test_writing_and_reading_lose_nothing():
    schedule = Schedule(
        500, 0.001, 0.02, "linear", "v_prediction", "trailing", 3, True, True, False, "sigma_min"
    )
    assert Schedule.from_config(schedule.to_config()) == schedule
    assert Schedule.from_config(MODELSCOPE.to_config()) == MODELSCOPE


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("thresholding", True),
        ("clip_sample", True),
        ("trained_betas", [0.1, 0.2]),
        ("algorithm_type", "sde-dpmsolver++"),
        ("use_karras_sigmas", True),
        ("beta_schedule", "squaredcos_cap_v2"),
        ("prediction_type", "sample"),
        ("timestep_spacing", "sideways"),
        ("interpolation_type", "linear"),
        ("steps_offset", -1),
        ("beta_start", 0.5),
        ("num_train_timesteps", 0),
        ("num_train_timesteps", -1000),
        ("num_train_timesteps", 10**12),
        ("num_train_timesteps", 10**400),
        ("num_train_timesteps", 1000.0),
        ("num_train_timesteps", "1000"),
        ("num_train_timesteps", True),
        ("num_train_timesteps", [1000]),
        ("num_train_timesteps", None),
        ("beta_start", "0.001"),
        ("beta_start", float("nan")),
        ("beta_end", float("inf")),
        ("beta_end", [0.02]),
        ("beta_schedule", ["linear"]),
        ("beta_schedule", {}),
        ("prediction_type", None),
        ("steps_offset", "1"),
        ("steps_offset", 1.5),
        ("set_alpha_to_one", "false"),
        ("set_alpha_to_one", 0),
        ("rescale_betas_zero_snr", None),
        ("clip_sample", {}),
    ],
)
def test_an_option_that_is_not_implemented_is_rejected_by_name(option, value):
    with pytest.raises(ScheduleError, match=option):
        Schedule.from_config(PUBLISHED | {option: value})


def test_all_mistakes_are_reported_together():
    config = {k: v for k, v in PUBLISHED.items() if k not in ("beta_end", "clip_sample")}
    with pytest.raises(ScheduleError) as error:
        Schedule.from_config(config | {"thresholding": True})
    for word in ("beta_end is missing", "thresholding: True", "clip_sample: True"):
        assert word in str(error.value)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_perfect_prediction_gives_the_clean_latent_back(prediction_type):
    schedule = Schedule(**vars(MODELSCOPE) | {"prediction_type": prediction_type})
    x, noise = jax.random.normal(jax.random.key(0), (2, 4, 2, 3, 3, 4))
    t = jnp.array([0, 300, 700, 999])
    target = schedule.target(x, noise=noise, t=t)
    clean = schedule.to_clean(schedule.add_noise(x, noise=noise, t=t), prediction=target, t=t)
    np.testing.assert_allclose(clean, x, atol=1e-5)


def test_one_step_for_all_equals_the_same_step_for_each():
    x, noise = jax.random.normal(jax.random.key(0), (2, 3, 2, 2, 2, 4))
    one = MODELSCOPE.add_noise(x, noise=noise, t=jnp.array(500))
    each = MODELSCOPE.add_noise(x, noise=noise, t=jnp.array([500, 500, 500]))
    np.testing.assert_array_equal(one, each)
    with pytest.raises(ValueError, match="one per clip"):
        MODELSCOPE.add_noise(x, noise=noise, t=jnp.array([1, 2]))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_min_snr_weights_count_every_step_alike_in_the_clean_latent(prediction_type):
    """The weighted error of a prediction is min(SNR, gamma) times that of its clean latent."""
    schedule = Schedule(**vars(MODELSCOPE) | {"prediction_type": prediction_type})
    x, noise = jax.random.normal(jax.random.key(0), (2, 6, 2, 3, 3, 4))
    t = jnp.array([0, 100, 300, 500, 700, 999])
    noisy = schedule.add_noise(x, noise=noise, t=t)
    target = schedule.target(x, noise=noise, t=t)
    off = target + 0.1 * jax.random.normal(jax.random.key(1), target.shape)

    def error(a, b):
        return np.square(np.asarray(a, np.float64) - b).mean((1, 2, 3, 4))

    kept = schedule.alphas_cumprod[np.asarray(t)]
    clean = error(schedule.to_clean(noisy, prediction=off, t=t), x)
    wanted = np.minimum(kept / (1 - kept), 5.0) * clean
    weight = schedule.min_snr_weight(t, gamma=5.0)
    np.testing.assert_allclose(weight * error(off, target), wanted, rtol=2e-3)


def test_min_snr_weights_are_finite_at_zero_terminal_snr():
    t = jnp.arange(1000)
    assert MODELSCOPE.rescale_zero_terminal_snr().min_snr_weight(t, gamma=5.0)[-1] == 1.0


def test_noise_cannot_be_inverted_at_zero_terminal_snr():
    x = jnp.ones((1, 1, 2, 2, 4))
    with pytest.raises(ScheduleError, match="v_prediction"):
        MODELSCOPE.rescale_zero_terminal_snr().to_clean(x, prediction=x, t=jnp.array(999))


def test_the_schedule_passes_through_jit():
    @jax.jit
    def noised(schedule, x, t):
        return schedule.add_noise(x, noise=x, t=t)

    x = jnp.ones((2, 1, 2, 2, 4))
    t = jnp.array([3, 900])
    np.testing.assert_allclose(
        noised(MODELSCOPE, x, t), MODELSCOPE.add_noise(x, noise=x, t=t), rtol=1e-6
    )


def test_offset_noise_is_one_draw_per_clip_and_channel():
    key, latents = jax.random.key(3), jnp.zeros((6, 4, 5, 5, 4))
    plain = noise_like(key, latents, offset_strength=0.0)
    offset = noise_like(key, latents, offset_strength=0.1) - plain
    per_clip_and_channel = offset[:, :1, :1, :1]
    np.testing.assert_allclose(
        offset, jnp.broadcast_to(per_clip_and_channel, offset.shape), atol=1e-6
    )
    assert len(np.unique(np.round(per_clip_and_channel, 5))) == 24
    strong = noise_like(key, latents, offset_strength=0.2) - plain
    np.testing.assert_allclose(strong, 2 * offset, atol=1e-6)


def test_noise_has_the_variance_it_says():
    noise = noise_like(jax.random.key(0), jnp.zeros((4000, 1, 2, 2, 4)), offset_strength=0.5)
    # Standard error of the variance of 64,000 draws, 16,000 of them independent: below 0.02.
    assert float(jnp.var(noise)) == pytest.approx(1.25, abs=0.05)
    assert float(jnp.mean(noise)) == pytest.approx(0, abs=0.05)
