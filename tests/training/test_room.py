"""The disk is asked before the first step whether it holds the checkpoints."""

import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from glfa_jax.errors import TrainingError
from glfa_jax.training import room
from glfa_jax.training.state import TrainState
from tests.training import toy

# One parameter of 256 KiB with two moments of it: 0.75 MiB a checkpoint.
ARRAY = jax.ShapeDtypeStruct((2**16,), np.float32)
STATE = TrainState(jax.ShapeDtypeStruct((), np.int32), {"a": ARRAY}, [ARRAY, ARRAY])


@pytest.fixture
def disk(monkeypatch):
    def with_free(mib: float) -> None:
        usage = SimpleNamespace(free=int(mib * 2**20))
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)

    return with_free


def test_it_says_how_much_is_missing(disk, tmp_path, capfd):
    disk(2.25)
    room.validate(tmp_path, STATE, most=3)
    assert f"{tmp_path}: a checkpoint takes 0.8 MiB, at most 3 are there" in capfd.readouterr().out
    disk(2.24)
    sentence = r"3 checkpoints of 0.8 MiB need 2.2 MiB more, the disk has 2.2 MiB free; make room"
    with pytest.raises(TrainingError, match=sentence):
        room.validate(tmp_path, STATE, most=3)


def test_checkpoints_that_are_there_need_no_room(disk, tmp_path):
    for name in ("2", "4", "trash"):
        (tmp_path / name).mkdir()
    disk(0.8)
    room.validate(tmp_path, STATE, most=3)
    disk(0.7)
    with pytest.raises(TrainingError, match=r"need 0.8 MiB more"):
        room.validate(tmp_path, STATE, most=3)


def test_no_step_is_made_on_a_disk_that_is_too_small(disk, tmp_path):
    disk(0)
    batches = toy.Batches()
    with pytest.raises(TrainingError, match=r"make room, or keep fewer \(keep, keep_best\)"):
        toy.run(tmp_path, steps=2, batches=batches)
    assert not batches.seen
