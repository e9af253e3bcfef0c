"""The samplers of a flow as tables: UniPC and Euler, at the times that diffusers takes.

diffusers rounds shares of noise to float32. So do these tables: UniPC starts so close to pure noise
that the rounding shows in how far the first step reaches.
"""

import numpy as np

from glfa_jax.diffusion.flow import FlowSchedule
from glfa_jax.diffusion.schedule import ScheduleError
from glfa_jax.diffusion.steps import Correction, Steps, multistep

# UniPC counts in log-SNR, which must be finite: its first share of noise falls short of 1 by this.
_SHORT_OF_NOISE = 1e-6


def plan_unipc(schedule: FlowSchedule, steps: int) -> Steps:
    """UniPC of order 2 with B(h) = exp(h) − 1, for clean latents (arXiv 2302.04867, algorithm 5).

    A predictor goes on along the slope of the last two clean latents, a corrector then along a
    parabola through three.
    """
    total = schedule.num_train_timesteps
    shares = schedule.shifted(np.linspace(1, 1 / total, steps + 1)[:-1])
    if abs(shares[0] - 1) < _SHORT_OF_NOISE:
        shares[0] -= _SHORT_OF_NOISE
    noise = _visited(shares, schedule)
    second_order = np.zeros(steps, bool)
    second_order[1:-1] = True
    moves = multistep(1 - noise, noise, second_order=second_order)
    reach = moves.reach[:-1]
    earlier, here = _interpolation(moves.stride[:-1], second_order[:-1])
    corrected = ~np.isin(np.arange(steps - 1), schedule.disable_corrector)

    def of_the_last_stride(coefficient: np.ndarray) -> np.ndarray:
        return np.append(0.0, corrected * coefficient)

    return Steps(
        t=np.trunc(shares * total),
        clean_from_x=np.ones(steps),
        clean_from_prediction=-noise[:-1],
        x=moves.x,
        clean=moves.clean,
        clean_before=moves.clean_before,
        correction=Correction(
            x=np.append(1.0, ~corrected),
            start=of_the_last_stride(moves.x[:-1]),
            clean=of_the_last_stride(reach * here),
            clean_before=of_the_last_stride(reach * (1 - here - earlier)),
            clean_earlier=of_the_last_stride(reach * earlier),
        ),
    )


def _interpolation(stride: np.ndarray, second_order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the clean latents one step before strides and at their ends; their starts have
    the rest.

    The exact solution weighs the clean latents on the way by exp(log-SNR). `mean` and `square` are
    moments of the place, from 0 to 1, under this weight; they integrate a parabola exactly. Where
    nothing is known from before, UniPC takes the mean of both ends.
    """
    share = -np.expm1(-stride)
    mean = 1 / share - 1 / stride
    square = 1 / share - 2 * mean / stride
    before = -np.append(1.0, stride[:-1])[: len(stride)] / stride  # the earlier place
    slope = (square - mean) / (before - 1)
    return np.where(second_order, slope / before, 0), np.where(second_order, mean - slope, 0.5)


def plan_euler(schedule: FlowSchedule, steps: int) -> Steps:
    """Euler's method: straight on towards the clean latent."""
    total = schedule.num_train_timesteps
    # From the last of all shifted shares to the first, and these are shifted once more.
    least = np.float32(schedule.shifted(np.array(1 / total, np.float32)))
    shares = schedule.shifted(np.linspace(1, np.float64(least), steps))
    noise = _visited(shares, schedule)
    kept = noise[1:] / noise[:-1]
    return Steps(
        t=noise[:-1].astype(np.float32) * np.float32(total),
        clean_from_x=np.ones(steps),
        clean_from_prediction=-noise[:-1],
        x=kept,
        clean=1 - kept,
        clean_before=np.zeros(steps),
    )


def _visited(shares: np.ndarray, schedule: FlowSchedule) -> np.ndarray:
    """The shares of noise as they are used, zero at the end."""
    visited = np.append(np.float32(shares), 0).astype(np.float64)
    if not (np.diff(visited) < 0).all():
        raise ScheduleError(
            f"sampling steps: {len(shares)} are too many for a flow with a shift of "
            f"{schedule.shift:g}, some fall together"
        )
    return visited


PLANS = {"unipc": plan_unipc, "euler": plan_euler}
