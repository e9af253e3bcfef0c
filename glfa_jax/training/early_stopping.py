"""Training in memory that ends where a measure no longer falls, and keeps its lowest.

For what takes minutes: nothing is saved on the way, and what is cut short is begun anew.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from glfa_jax.config import Descent
from glfa_jax.errors import TrainingError
from glfa_jax.training.logs import Progress
from glfa_jax.training.optim import Group, optimizer
from glfa_jax.training.processes import is_main


class Best(NamedTuple):
    """params: those of step `kept`, which may be 0, on the host. curve: step and measure, where it
    is finite. last: the step after which training ended."""

    params: dict
    curve: list[tuple[int, float]]
    kept: int
    last: int


def train_to_best(
    name: str,
    *,
    stage: Descent,
    every: int,
    patience: int,
    init: dict,
    frozen: Any,
    groups: tuple[Group, ...],
    loss_fn: Callable[[dict, Any, Any], jax.Array],
    batches: Iterator[Any],
    measure: Callable[[dict], float],
) -> Best:
    """Makes at most `stage.steps` steps, on one device.

    every: steps between two measures. patience: measures without a new lowest after which training
    ends, as it does at one that is not finite. loss_fn: (trainable, frozen, batch) to the loss.
    measure: of the trainable parameters; the lower the better.

    Raises TrainingError where the measure is not finite before the first step.
    """
    optim = optimizer(stage, trainable=init, groups=groups)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, moments: Any, frozen: Any, batch: Any) -> tuple[Any, Any, jax.Array]:
        loss, gradient = jax.value_and_grad(loss_fn)(params, frozen, batch)
        updates, moments = optim.update(gradient, moments, params)
        return optax.apply_updates(params, updates), moments, loss

    params = jax.tree.map(jnp.array, init)  # copies, as steps reuse their memory
    best, curve, lowest, number = init, [(0, measure(params))], 0, 0
    if not math.isfinite(curve[0][1]):
        raise TrainingError(f"{name}: what is to fall is {curve[0][1]} before the first step")
    moments = optim.init(params)
    progress = Progress(name, step=0, steps=stage.steps) if is_main() else None
    try:
        for number, batch in zip(range(1, stage.steps + 1), batches, strict=False):
            params, moments, loss = step(params, moments, frozen, batch)
            if progress:
                progress.update(number, loss=float(loss))
            if number % every and number < stage.steps:
                continue
            found = measure(params)
            if not math.isfinite(found):
                break
            curve.append((number, found))
            if found < curve[lowest][1]:
                lowest, best = len(curve) - 1, jax.tree.map(jnp.copy, params)
            if len(curve) - 1 - lowest >= patience:
                break
    finally:
        if progress:
            progress.close()
    return Best(jax.device_get(best), curve, curve[lowest][0], number)
