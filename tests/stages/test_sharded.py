"""Every stage computes the same on any mesh and by any number of processes."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from glfa_jax import config
from glfa_jax.errors import TrainingError
from tests.stages import tiny
from tests.stages.matrix import LIMIT, ONE, difference, start, start_two, wait

# Some of what `tests.stages.matrix` runs, as compiling is slow: every stage with parameters in
# pieces, and the one with all there is on every axis, on one, two and three of them.
EIGHT = ("pretrain-4,2,1", "contrast-1,8,1", "cotrain-4,1,2")
ACROSS = ("cotrain-2,2,2",)


def test_every_mesh_equals_one_device(tmp_path):
    """On eight devices, and by two processes with four each. One test, so that it runs once."""
    wait(start(tmp_path, "0/1", 1, *(f"{name}-{ONE}" for name in tiny.STAGES)))
    wait(start(tmp_path, "0/1", 8, *EIGHT))
    wait(*start_two(tmp_path, *ACROSS))
    for name in tiny.STAGES:
        trains(name, tmp_path / f"{name}-{ONE}-1.npz")
    found = {}
    for run in [*(f"{x}-1" for x in EIGHT), *(f"{x}-2" for x in ACROSS)]:
        one = tmp_path / f"{run.partition('-')[0]}-{ONE}-1.npz"
        found[run] = difference(tmp_path / f"{run}.npz", one)
    assert not {run: x for run, x in found.items() if max(x) > LIMIT}

    pieces = (tmp_path / "cotrain-2,2,2-2" / "sharding.txt").read_text()
    assert pieces.splitlines()[1].split()[0] != "0"
    assert "unet/" in pieces
    whole = (tmp_path / "cotrain-4,1,2-1" / "sharding.txt").read_text()
    assert whole.splitlines()[1].startswith("0 parameters in pieces")


def trains(name: str, file: Path) -> None:
    """Parameters have moved by far more than they may differ, and losses with them."""
    before = flatten_dict(tiny.STAGES[name]()["init"], sep="/")
    with np.load(file) as after:
        assert len(set(after["log loss"])) == tiny.STEPS
        moved = {key: np.abs(after[key] - value).max() for key, value in before.items()}
    assert np.median(list(moved.values())) > 100 * LIMIT, moved


def test_a_batch_in_parts_is_the_mean_over_them(tmp_path, monkeypatch):
    """Where the loss is a mean over rows and nothing is random, parts change nothing."""
    monkeypatch.setitem(tiny.STAGES, "pretrain", partial(tiny.pretraining, dropout=0.0))
    whole = tiny.run("pretrain", tmp_path / "whole", hardware=config.Hardware())
    parts = tiny.run("pretrain", tmp_path / "parts", hardware=config.Hardware(), accumulate=4)
    for name, value in whole.items():
        np.testing.assert_allclose(parts[name], value, rtol=0, atol=LIMIT, err_msg=name)


def test_a_mesh_that_does_not_fit_is_rejected(tmp_path):
    hardware = config.Hardware(mesh=config.MeshSize(data=3))
    with pytest.raises(TrainingError, match="data 3 x fsdp 1 x frame 1 does not give the number"):
        tiny.run("pretrain", tmp_path, hardware=hardware)


def test_a_batch_that_cannot_be_cut_is_rejected(tmp_path):
    with pytest.raises(TrainingError, match="a multiple of 3: 1 devices share them in 3 parts"):
        tiny.run("pretrain", tmp_path, hardware=config.Hardware(), accumulate=3)


def test_rules_name_parameters(tmp_path):
    hardware = config.Hardware(sharding={"no such parameter": ("fsdp",)})
    with pytest.raises(TrainingError, match="no parameter is named by no such parameter"):
        tiny.run("pretrain", tmp_path, hardware=hardware)
