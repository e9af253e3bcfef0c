"""The optimizer against torch.optim.AdamW with clip_grad_norm_."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from glfa_jax.training.optim import Group, optimizer
from tests.training import toy


@pytest.mark.parametrize("size", [0.01, 10.0], ids=["below the clip", "clipped"])
def test_adamw_with_clipping_is_torchs(size):
    rng = np.random.default_rng(0)
    shapes = {"weight": (4, 3), "bias": (3,), "scale": ()}
    start = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    theirs = {name: torch.nn.Parameter(torch.tensor(x)) for name, x in start.items()}
    groups = [
        {"params": [theirs["weight"], theirs["bias"]], "lr": 1e-2},
        {"params": [theirs["scale"]], "lr": 1e-1},
    ]
    judge = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.3)

    stage = toy.stage(steps=5, learning_rate=1e-2, weight_decay=0.3, warmup_steps=0)
    ours = {name: jnp.asarray(x) for name, x in start.items()}
    optim = optimizer(stage, trainable=ours, groups=toy.GROUPS)
    state = optim.init(ours)

    for _ in range(5):
        gradients = {
            name: size * rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()
        }
        for name, x in theirs.items():
            x.grad = torch.tensor(np.asarray(gradients[name]))
        norm = torch.nn.utils.clip_grad_norm_(list(theirs.values()), stage.clip_norm)
        assert (norm > stage.clip_norm) == (size > 1)
        judge.step()
        updates, state = optim.update(gradients, state, ours)
        ours = optax.apply_updates(ours, updates)

    for name, x in theirs.items():
        np.testing.assert_allclose(ours[name], x.detach().numpy(), rtol=1e-5, atol=1e-6)
        assert np.max(np.abs(ours[name] - start[name])) > 1e-2
    assert toy.GROUPS[0] == Group("scale$", 10.0)
