"""One step, without the loop around it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glfa_jax import config
from glfa_jax.training.optim import OTHERWISE, Group, optimizer
from glfa_jax.training.sharding import make_mesh
from glfa_jax.training.step import abstract_state, initial_state, jitted_step


@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_may_hold_empty_arrays(parts) -> None:
    """As batches with latents do in place of their videos."""
    mesh, hardware = make_mesh(config.MeshSize()), config.Hardware()
    optim = optimizer(
        config.Stage(steps=1, batch_size=4, learning_rate=0.1),
        trainable={"w": jnp.zeros(3)},
        groups=(Group(OTHERWISE, 1.0),),
        moment_dtype="float32",
    )

    def loss(params, frozen, batch, key):
        return jnp.square(batch["x"] @ params["w"] - batch["video"].sum((1, 2)) - 1).mean(), {}

    abstract = abstract_state({"w": jnp.zeros(3)}, optim, mesh, hardware)
    x = np.random.default_rng(0).standard_normal((4, 3), np.float32)
    batch = {"x": x, "video": np.zeros((4, 0, 5), np.float32)}
    found = []
    for accumulate in (1, parts):
        init = lambda key: {"w": jnp.ones(3)}  # noqa: E731
        state = initial_state(init, jax.random.key(0), optim, abstract, mesh)
        step = jitted_step(loss, optim, abstract, mesh, accumulate=accumulate)
        state, metrics = step(state, None, batch, jax.random.key(1))
        found.append((metrics["loss"], state.params["w"]))
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=1e-6)
    np.testing.assert_allclose(found[1][1], found[0][1], rtol=1e-6)
