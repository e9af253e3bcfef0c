"""Groups cover every parameter exactly once, and split and merge are inverses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from glfa_jax.errors import TrainingError
from glfa_jax.training.optim import Group, learning_rate, merge, optimizer, rates, split
from tests.training import toy

PARAMS = {
    "encoder": {"blocks.0": {"kernel": np.ones((2, 2)), "bias": np.zeros(2)}},
    "unet": {"attn1": {"kernel": np.ones(3)}, "ff": {"kernel": np.ones(4)}},
}
GROUPS = (Group("^encoder/", 1.0), Group("attn1", 2.0), Group("otherwise", None))


def test_split_and_merge_are_inverses():
    trainable, frozen = split(PARAMS, groups=GROUPS)
    assert set(trainable["unet"]) == {"attn1"}
    assert frozen == {"unet": {"ff": PARAMS["unet"]["ff"]}}
    both = merge(trainable, frozen)
    assert jax.tree.structure(both) == jax.tree.structure(PARAMS)
    assert all(a is b for a, b in zip(*map(jax.tree.leaves, (both, PARAMS)), strict=True))


def test_zero_freezes():
    groups = (Group("^encoder/", 0), Group("^unet/", 0.5))
    assert set(split(PARAMS, groups=groups).trainable) == {"unet"}
    assert rates(PARAMS, groups=groups)["encoder"]["blocks.0"] == {"kernel": 0.0, "bias": 0.0}


@pytest.mark.parametrize(
    ("groups", "sentence"),
    [
        ((Group("^encoder/", 1.0), Group("attn1", 1.0)), "unet/ff/kernel is matched by no group"),
        (
            (*GROUPS, Group("bias", 0.1)),
            r"encoder/blocks.0/bias is matched by \['\^encoder/', 'bias'\]",
        ),
        ((*GROUPS, Group("otherwise", 1.0)), r"unet/ff/kernel is matched by \['otherwise', 'oth"),
        ((*GROUPS, Group("atn1", 1.0)), "'atn1' matches nothing"),
    ],
)
def test_wrong_tables_are_rejected(groups, sentence):
    with pytest.raises(TrainingError, match=sentence):
        split(PARAMS, groups=groups)


def test_all_mistakes_come_together():
    with pytest.raises(TrainingError, match=r"attn1/kernel.*ff/kernel"):
        split(PARAMS, groups=(Group("^encoder/", 1.0),))


def test_merge_rejects_what_is_in_both():
    with pytest.raises(TrainingError, match="unet/ff/kernel"):
        merge(PARAMS, {"unet": {"ff": {"kernel": 1}}})


def test_frozen_parameter_among_the_trainable_is_rejected():
    with pytest.raises(TrainingError, match="unet/ff/kernel"):
        optimizer(toy.stage(steps=1), trainable=PARAMS, groups=GROUPS)


def test_warm_up_is_linear_and_then_constant():
    params = {"w": np.ones((), np.float32)}
    # With these betas the bias corrections are exact, and every plain update is 1.
    options = {"learning_rate": 1.0, "weight_decay": 0.0, "betas": (0.5, 0.5)}
    stage = toy.stage(steps=9, warmup_steps=4, **options)
    optim = optimizer(stage, trainable=params, groups=(Group("otherwise", 1.0),))
    state, sizes = optim.init(params), []
    for _ in range(6):
        updates, state = optim.update({"w": np.ones((), np.float32)}, state, params)
        sizes.append(-float(optax.tree.norm(updates)))
    np.testing.assert_allclose(sizes, [-0.25, -0.5, -0.75, -1, -1, -1], rtol=1e-5)


def test_cosine_starts_full_and_ends_at_zero():
    stage = toy.stage(steps=8, warmup_steps=0, learning_rate=2.0, decay="cosine")
    got = [float(learning_rate(stage, jnp.int32(count))) for count in (0, 4, 8)]
    np.testing.assert_allclose(got, [2, 1, 0], atol=1e-6)


def test_first_moments_may_be_bfloat16():
    params = {"a": jnp.linspace(-1, 1, 64)}
    groups = (Group("otherwise", 1.0),)
    whole, half = (
        optimizer(toy.stage(steps=9), trainable=params, groups=groups, moment_dtype=dtype)
        for dtype in ("float32", "bfloat16")
    )
    state, coarse = whole.init(params), half.init(params)
    adam = optax.tree.get(coarse, "ScaleByAdamState", filtering=lambda path, value: True)
    assert {x.dtype.name for x in jax.tree.leaves(adam.mu)} == {"bfloat16"}
    assert {x.dtype.name for x in jax.tree.leaves(adam.nu)} == {"float32"}
    for step in range(4):
        gradients = {"a": jnp.sin(params["a"] * (step + 1))}
        updates, state = whole.update(gradients, state, params)
        near, coarse = half.update(gradients, coarse, params)
    difference = jnp.abs(updates["a"] - near["a"])
    assert 0 < difference.max() < 1e-2 * jnp.abs(updates["a"]).max()


def test_a_group_is_clamped_at_its_most_after_every_step():
    """As CLIP clamps its logit scale: it may come back, and nothing else is touched."""
    params = {"scale": jnp.float32(4.0), "kernel": jnp.float32(4.0)}
    stage = toy.stage(steps=4).model_copy(
        update={"learning_rate": 0.4, "weight_decay": 0.0, "warmup_steps": 0}
    )
    free = (Group("^scale$", 2.0), Group("otherwise", 1.0))
    limited = (Group("^scale$", 2.0, 4.6), Group("otherwise", 1.0))
    found = {}
    for name, groups in (("free", free), ("limited", limited)):
        optim = optimizer(stage, trainable=params, groups=groups)
        state, now, seen = optim.init(params), params, []
        for sign in (-1, -1, 1, 1):
            gradients = jax.tree.map(lambda x, sign=sign: sign * jnp.ones_like(x), params)
            updates, state = optim.update(gradients, state, now)
            now = optax.apply_updates(now, updates)
            seen.append({key: float(x) for key, x in now.items()})
        found[name] = seen
    assert max(step["scale"] for step in found["free"]) > 5
    np.testing.assert_allclose([step["scale"] for step in found["limited"][:2]], 4.6, rtol=1e-6)
    assert found["limited"][3]["scale"] < 4.6
    for free_step, step in zip(found["free"], found["limited"], strict=True):
        assert free_step["kernel"] == step["kernel"]


def test_without_a_limit_the_state_is_as_it_was_before_there_were_any():
    groups = (Group("otherwise", 1.0),)
    params = {"x": jnp.ones(2)}
    optim = optimizer(toy.stage(steps=1), trainable=params, groups=groups)
    assert len(optim.init(params)) == 5
