"""Deterministic samplers: from noise to a clean latent as one compiled program."""

from typing import Any, Literal

import numpy as np
from jaxtyping import Array, Float

from glfa_jax.diffusion import flow_steps
from glfa_jax.diffusion.flow import FlowSchedule
from glfa_jax.diffusion.schedule import Schedule, ScheduleError
from glfa_jax.diffusion.steps import Denoiser, Steps, multistep, walk

Method = Literal["dpm++", "ddim", "unipc", "euler"]


def sample(
    denoise: Denoiser,
    noise: Float[Array, "*x"],
    *,
    schedule: Schedule | FlowSchedule,
    steps: int,
    method: Method,
) -> Float[Array, "*x"]:
    """Turns standard normal noise into a latent, in float32.

    `denoise(x_t, t)` gives what the schedule's generator predicts; `t` is a scalar, int32 of a
    diffusion and float32 of a flow. `steps` and `method` are static under jit. The answer equals
    that of diffusers' DPMSolverMultistepScheduler or DDIMScheduler (eta 0), of a flow that of
    UniPCMultistepScheduler or FlowMatchEulerDiscreteScheduler, made `from_config` of the same file.
    """
    return walk(denoise, noise, plan(schedule, steps=steps, method=method))


def plan(schedule: Schedule | FlowSchedule, *, steps: int, method: Method) -> Steps:
    """The coefficient table of `sample`, in float64."""
    plans: Any = flow_steps.PLANS if isinstance(schedule, FlowSchedule) else _PLANS
    if method not in plans:
        raise ValueError(f"sampler: {method!r} is unknown, choose from {', '.join(plans)}")
    if not 1 <= steps < schedule.num_train_timesteps:
        raise ValueError(
            f"sampling steps: {steps} must lie in 1 to {schedule.num_train_timesteps - 1}"
        )
    return plans[method](schedule, steps)


def _plan_dpm(schedule: Schedule, steps: int) -> Steps:
    """DPM-Solver++(2M), midpoint (arXiv 2211.01095, algorithm 2)."""
    total = schedule.num_train_timesteps
    spacing = schedule.timestep_spacing or "linspace"
    if spacing == "linspace":
        t = np.linspace(0, total - 1, steps + 1).round()[:0:-1]
    elif spacing == "leading":
        t = (np.arange(1, steps + 1) * (total // (steps + 1)))[::-1] + schedule.steps_offset
    else:
        t = np.arange(total, 0, -total / steps).round() - 1
    t = t.astype(np.int64)

    alphas_cumprod = schedule.alphas_cumprod.copy()
    if schedule.rescale_betas_zero_snr:
        alphas_cumprod[-1] = 2.0**-24  # as diffusers: log-SNR must be finite
    last = 1.0 if schedule.final_sigmas_type == "zero" else alphas_cumprod[0]
    visited = np.append(alphas_cumprod[t], last)
    signal, noise = np.sqrt(visited), np.sqrt(1 - visited)
    second_order = np.arange(steps) > 0
    if schedule.final_sigmas_type == "zero" or (schedule.lower_order_final and steps < 15):
        second_order[-1] = False
    moves = multistep(signal, noise, second_order=second_order)
    return Steps(
        t=t,
        **_clean(schedule, signal[:-1], noise[:-1]),
        x=moves.x,
        clean=moves.clean,
        clean_before=moves.clean_before,
    )


def _plan_ddim(schedule: Schedule, steps: int) -> Steps:
    """DDIM without added noise (arXiv 2010.02502, equation 12)."""
    total = schedule.num_train_timesteps
    spacing = schedule.timestep_spacing or "leading"
    if spacing == "linspace":
        t = np.linspace(0, total - 1, steps).round()[::-1]
    elif spacing == "leading":
        t = (np.arange(steps) * (total // steps))[::-1] + schedule.steps_offset
    else:
        t = np.round(np.arange(total, 0, -total / steps)) - 1
    t = t.astype(np.int64)

    alphas_cumprod = schedule.alphas_cumprod
    last = 1.0 if schedule.set_alpha_to_one else alphas_cumprod[0]
    # The next step is a fixed stride away whatever the spacing, as in diffusers.
    following = t - total // steps
    target = np.where(following >= 0, alphas_cumprod[following], last)
    signal, noise = np.sqrt(alphas_cumprod[t]), np.sqrt(1 - alphas_cumprod[t])
    scale = np.sqrt(1 - target) / noise
    return Steps(
        t=t,
        **_clean(schedule, signal, noise),
        x=scale,
        clean=np.sqrt(target) - scale * signal,
        clean_before=np.zeros(steps),
    )


def _clean(schedule: Schedule, signal: np.ndarray, noise: np.ndarray) -> dict[str, Any]:
    if schedule.prediction_type == "v_prediction":
        return {"clean_from_x": signal, "clean_from_prediction": -noise}
    if not signal.all():
        raise ScheduleError(
            "ddim: predicted noise says nothing about the clean latent at zero terminal SNR; use "
            "prediction_type v_prediction or sampler dpm++"
        )
    return {"clean_from_x": 1 / signal, "clean_from_prediction": -noise / signal}


_PLANS = {"dpm++": _plan_dpm, "ddim": _plan_ddim}
