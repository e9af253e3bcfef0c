import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glfa_jax.diffusion.flow import FlowSchedule
from glfa_jax.diffusion.sampler import plan, sample
from glfa_jax.diffusion.schedule import ScheduleError

FILE = FlowSchedule(shift=3.0).to_config()
EULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0, "flow_shift": 7.0}


def test_writing_and_reading_lose_nothing():
    schedule = FlowSchedule(500, 2.5, (0, 3))
    assert FlowSchedule.from_config(schedule.to_config()) == schedule


def test_each_class_has_a_word_of_its_own_for_the_shift():
    assert FlowSchedule.from_config(EULER) == FlowSchedule(shift=3.0)
    assert FlowSchedule.from_config(FILE | {"shift": 7.0}) == FlowSchedule(shift=3.0)
    without = {key: value for key, value in FILE.items() if key != "flow_shift"}
    assert FlowSchedule.from_config(without) == FlowSchedule(shift=1.0)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("_class_name", "DDIMScheduler"),
        ("_class_name", None),
        ("use_flow_sigmas", False),
        ("prediction_type", "epsilon"),
        ("solver_order", 3),
        ("solver_type", "bh1"),
        ("predict_x0", False),
        ("lower_order_final", False),
        ("final_sigmas_type", "sigma_min"),
        ("use_karras_sigmas", True),
        ("use_dynamic_shifting", True),
        ("shift_terminal", 0.02),
        ("invert_sigmas", True),
        ("stochastic_sampling", True),
        ("sideways", 1),
        ("flow_shift", 0),
        ("flow_shift", "3"),
        ("flow_shift", True),
        ("flow_shift", None),
        ("flow_shift", float("nan")),
        ("flow_shift", float("inf")),
        ("num_train_timesteps", 1),
        ("num_train_timesteps", 1000.0),
        ("num_train_timesteps", 10**12),
        ("disable_corrector", [0.5]),
        ("disable_corrector", None),
        ("disable_corrector", {}),
    ],
)
def test_an_option_that_is_not_implemented_is_rejected_by_name(option, value):
    said = {"_class_name": "it is of the class", "flow_shift": "shift"}.get(option, option)
    with pytest.raises(ScheduleError, match=said) as error:
        FlowSchedule.from_config(FILE | {option: value})
    assert len(str(error.value).splitlines()) == 1


def test_all_mistakes_are_reported_together():
    config = {key: value for key, value in FILE.items() if key != "use_flow_sigmas"}
    with pytest.raises(ScheduleError) as error:
        FlowSchedule.from_config(config | {"thresholding": True, "sideways": 1})
    for word in ("use_flow_sigmas is missing", "thresholding: True", "'sideways'"):
        assert word in str(error.value)


def test_times_of_training_are_logit_normal_and_shifted():
    schedule = FlowSchedule(shift=3.0)
    t = np.asarray(schedule.times(jax.random.key(0), 20000), np.float64)
    assert t.min() > 0
    assert t.max() < 1000
    share = t / 1000
    before = share / (3 - 2 * share)  # the shift undone
    logit = np.log(before / (1 - before))
    assert abs(logit.mean()) < 0.03
    assert abs(logit.std() - 1) < 0.03
    assert len(np.unique(t)) > 19000


def test_the_ends_are_the_clean_latent_and_the_noise():
    schedule = FlowSchedule(shift=5.0)
    clean, noise = np.random.default_rng(0).standard_normal((2, 2, 3, 4, 4, 2))
    for t, wanted in ((0.0, clean), (1000.0, noise), (250.0, 0.75 * clean + 0.25 * noise)):
        found = schedule.add_noise(clean, noise=noise, t=jnp.array(t))
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)
        each = schedule.add_noise(clean, noise=noise, t=jnp.full(2, t))
        np.testing.assert_array_equal(each, found)
    with pytest.raises(ValueError, match="one per clip"):
        schedule.add_noise(clean, noise=noise, t=jnp.zeros(3))


@pytest.mark.parametrize(("method", "order"), [("unipc", 2.5), ("euler", 0.9)])
def test_a_gaussian_keeps_its_deviation_to_the_order_of_the_method(method, order):
    """For data ~ N(0, 0.6²) the best velocity is linear in x, so the walk is a factor, exact."""
    schedule = FlowSchedule(shift=1.0)
    variance = 0.6**2

    def factor(steps):
        """At a tenth of noise, in float64: the tables' own error, not that of rounding."""
        table = plan(schedule, steps=steps, method=method)
        sigmas = -np.asarray(table.clean_from_prediction)
        spread = np.sqrt((1 - sigmas) ** 2 * variance + sigmas**2)
        x, start, before, earlier = spread[0], 0.0, 0.0, 0.0
        for i, sigma in enumerate(sigmas):
            clean = x - sigma * (sigma - (1 - sigma) * variance) * x / spread[i] ** 2
            if table.correction is not None:
                again = [column[i] for column in table.correction]
                x = np.dot(again, [x, start, clean, before, earlier])
            if sigma < 0.1:
                return x / spread[i]
            onwards = table.x[i] * x + table.clean[i] * clean + table.clean_before[i] * before
            x, start, before, earlier = onwards, x, clean, before
        raise AssertionError

    coarse, fine = (abs(factor(steps) - 1) for steps in (40, 160))
    assert np.log(coarse / fine) / np.log(4) > order


@pytest.mark.parametrize("method", ["unipc", "euler"])
def test_a_known_latent_is_reached_exactly(method):
    """Where the denoiser always points to one latent, so does the sampler."""
    schedule = FlowSchedule(shift=3.0)
    noise = jax.random.normal(jax.random.key(0), (2, 2, 3, 3, 4))
    wanted = jnp.linspace(-2, 2, noise.size).reshape(noise.shape)

    def denoise(x, t):
        assert t.dtype == jnp.float32
        return noise - wanted

    latents = sample(denoise, noise, schedule=schedule, steps=10, method=method)
    np.testing.assert_allclose(latents, wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("steps", "method", "message"),
    [(0, "unipc", "steps"), (1000, "euler", "steps"), (10, "ddim", "unipc, euler")],
)
def test_what_cannot_be_planned_is_rejected(steps, method, message):
    with pytest.raises(ValueError, match=message):
        plan(FlowSchedule(), steps=steps, method=method)


def test_a_shift_that_leaves_no_steps_apart_is_rejected():
    with pytest.raises(ScheduleError, match=r"sampling steps: 30 are too many .* 1e\+07"):
        plan(FlowSchedule(shift=1e7), steps=30, method="unipc")
