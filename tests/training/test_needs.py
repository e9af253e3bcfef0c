"""What a stage holds, from shapes: counted by hand, on one device and on four."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from glfa_jax.config import Hardware
from glfa_jax.errors import TrainingError
from glfa_jax.training import speed
from glfa_jax.training.needs import Needs, frozen_shapes, needs_of, validate
from glfa_jax.training.optim import Group, optimizer
from glfa_jax.training.sharding import AXES, make_mesh
from glfa_jax.training.step import abstract_state
from tests.training import toy

PARAMS = {
    "large": jax.ShapeDtypeStruct((1024, 64), np.float32),
    "small": jax.ShapeDtypeStruct((3,), np.float32),
}
FROZEN = {
    "kernel": jax.ShapeDtypeStruct((64, 512), np.float32),
    "tokens": jax.ShapeDtypeStruct((10,), np.int32),
}


@pytest.mark.parametrize(
    ("fsdp", "hardware", "expected"),
    [
        # Two counts of four bytes are moments as well: Adam's, and that of the learning rate.
        (
            1,
            {},
            Needs(4 * 65539, 8 * 65539 + 8, 4 * 65539, 4 * 32768 + 40, checkpoint=12 * 65539 + 8),
        ),
        (
            4,
            {"frozen_dtype": "bfloat16", "moment_dtype": "bfloat16"},
            Needs(4 * 16387, 6 * 16387 + 8, 4 * 16387, 2 * 8192 + 40, checkpoint=10 * 65539 + 8),
        ),
    ],
)
def test_bytes_on_a_device_and_on_the_disk(fsdp, hardware, expected):
    own = Hardware(**hardware, shard_from_bytes=1024)
    mesh = AbstractMesh((1, fsdp, 1), AXES)
    groups = (Group("otherwise", 1.0),)
    optim = optimizer(
        toy.stage(steps=1), trainable=PARAMS, groups=groups, moment_dtype=own.moment_dtype
    )
    state = abstract_state(PARAMS, optim, mesh, own)
    assert needs_of(state, frozen_shapes(FROZEN, mesh, own)) == expected


def test_more_than_a_device_has_is_rejected_before_anything_is_loaded(tmp_path, monkeypatch):
    mesh = make_mesh(Hardware().mesh, devices=jax.devices()[:1])
    needs = Needs(2 * 2**30, 2**30, 2 * 2**30, 0, 0)
    monkeypatch.setattr(speed, "capacity", lambda device, **_: 5 * 2**30)
    validate("cotrain", needs, mesh)
    monkeypatch.setattr(speed, "capacity", lambda device, **_: 3.5 * 2**30)
    sentence = r"cotrain: parameters, moments and gradients take 5.00 GiB on each device, 1.50 GiB"
    with pytest.raises(TrainingError, match=sentence):
        validate("cotrain", needs, mesh)
    monkeypatch.setattr(speed, "capacity", lambda device, **_: 100)
    batches = toy.Batches()
    with pytest.raises(TrainingError, match=r"toy: parameters, moments and gradients take"):
        toy.run(tmp_path, steps=1, batches=batches)
    assert not batches.seen


def test_a_device_says_what_it_has_and_others_are_looked_up():
    gpu = SimpleNamespace(
        platform="gpu", device_kind="NVIDIA H100", memory_stats=lambda: {"bytes_limit": 123}
    )
    assert speed.capacity(gpu, here=True, sharing=1) == 123
    assert speed.capacity(gpu, here=False, sharing=1) == 80e9
    unknown = SimpleNamespace(platform="tpu", device_kind="new", memory_stats=lambda: None)
    assert speed.capacity(unknown, here=True, sharing=1) is None
