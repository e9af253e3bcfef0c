"""Alignments fitted by descending a gradient: in memory here, as a stage in `stages.adapt`."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from glfa_jax.alignments.protocol import SHARED, Alignment
from glfa_jax.config import Adapt
from glfa_jax.training.optim import OTHERWISE, Group, optimizer

GROUPS = (Group(OTHERWISE, 1.0),)  # all parameters train


@dataclass(frozen=True)
class DescentAlignment(Alignment):
    """An alignment to pairs whose author writes `layer` and `loss`."""

    needs = "paired"

    @abstractmethod
    def loss(
        self,
        layer: nn.Module,
        params: dict,
        *,
        maps: Float[Array, "b w height width"],
        targets: Float[Array, "b w height width"],
        mask: Float[Array, "height width"],
        settings: Adapt,
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """What falls as the maps are fitted to their targets, and its parts by name."""

    def solve(self, maps, *, targets, group, settings, seed):
        """`settings.steps` steps on random batches of windows, from `group.start`."""
        assert targets is not None  # `fit` asked for them
        layer, mask = self.layer(group.mask.shape), jnp.asarray(group.mask, jnp.float32)
        start_key, order_key = jax.random.split(jax.random.key(seed))
        start = group.start
        if start is None:
            start = self.init(start_key, maps_shape=group.mask.shape)[SHARED]
        optim = optimizer(settings, trainable=start, groups=GROUPS)
        pairs = jnp.asarray(np.stack([maps, targets], axis=1), jnp.float32)
        size = min(settings.batch_size, len(pairs))

        def loss(params: dict, batch: Array) -> Any:
            own, wanted = batch[:, 0], batch[:, 1]
            return self.loss(layer, params, maps=own, targets=wanted, mask=mask, settings=settings)[
                0
            ]

        def step(i: Array, state: tuple[Any, Any]) -> tuple[Any, Any]:
            params, moments = state
            chosen = jax.random.permutation(jax.random.fold_in(order_key, i), len(pairs))[:size]
            gradient = jax.grad(loss)(params, pairs[chosen])
            updates, moments = optim.update(gradient, moments, params)
            return optax.apply_updates(params, updates), moments

        @jax.jit
        def descend(start: dict) -> dict:
            state = (jax.tree.map(jnp.asarray, start), optim.init(start))
            return jax.lax.fori_loop(0, settings.steps, step, state)[0]

        return descend(start)
