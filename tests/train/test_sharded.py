"""Every stage computes the same on any mesh and by any number of processes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from glfa_jax import config
from glfa_jax.training.state import TrainingError
from tests.train import tiny

ROOT = Path(__file__).parents[2]
# data,fsdp,frame on eight devices of one process, and on twice four of two
MESHES = ("8,1,1", "4,2,1", "1,8,1", "4,1,2")
ACROSS = ("4,2,1", "2,2,2")


def start(out: Path, place: str, devices: int, *meshes: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.train.tiny", str(out), place, *meshes]
    env = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "XLA_FLAGS": ""}
    return subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)


def wait(*processes: subprocess.Popen) -> None:
    for process in processes:
        _, errors = process.communicate(timeout=900)
        assert process.returncode == 0, errors[-3000:]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """By one device."""
    folder = tmp_path_factory.mktemp("one")
    with jax.default_matmul_precision("highest"):
        return {
            name: tiny.run(name, folder / name, hardware=config.Hardware()) for name in tiny.STAGES
        }


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    out = tmp_path_factory.mktemp("eight")
    wait(start(out, "0/1", 8, *MESHES))
    return out


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    out = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    wait(*[start(out, f"{i}/2@127.0.0.1:{port}", 4, *ACROSS) for i in range(2)])
    return out


def agrees(found: Path, expected: dict[str, np.ndarray]) -> None:
    with np.load(found) as arrays:
        assert set(arrays.files) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(arrays[name], value, rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("name", tiny.STAGES)
def test_eight_devices_equal_one(one, eight, name, mesh):
    agrees(eight / f"{name}-{mesh}.npz", one[name])


@pytest.mark.parametrize("mesh", ACROSS)
@pytest.mark.parametrize("name", tiny.STAGES)
def test_two_processes_equal_one(one, two_processes, name, mesh):
    agrees(two_processes / f"{name}-{mesh}.npz", one[name])


def test_parameters_lie_in_pieces(eight):
    text = (eight / "cotrain-1,8,1" / "sharding.txt").read_text()
    assert text.splitlines()[1].split()[0] != "0"
    assert "unet/" in text
    whole = (eight / "cotrain-8,1,1" / "sharding.txt").read_text()
    assert whole.splitlines()[1].startswith("0 parameters in pieces")


def test_a_batch_in_parts_is_the_mean_over_them(tmp_path):
    """Where the loss is a mean over rows and nothing is random, parts change nothing."""
    whole = tiny.run("pretrain", tmp_path / "whole", hardware=config.Hardware())
    parts = tiny.run("pretrain", tmp_path / "parts", hardware=config.Hardware(), accumulate=4)
    for name, value in whole.items():
        np.testing.assert_allclose(parts[name], value, rtol=0, atol=1e-5, err_msg=name)


def test_a_mesh_that_does_not_fit_is_refused(tmp_path):
    hardware = config.Hardware(mesh=config.MeshSize(data=3))
    with pytest.raises(TrainingError, match="data 3 x fsdp 1 x frame 1 does not give the number"):
        tiny.run("pretrain", tmp_path, hardware=hardware)


def test_a_batch_that_cannot_be_cut_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="a multiple of 3: 1 devices share them in 3 parts"):
        tiny.run("pretrain", tmp_path, hardware=config.Hardware(), accumulate=3)


def test_rules_name_parameters(tmp_path):
    hardware = config.Hardware(sharding={"no such parameter": ("fsdp",)})
    with pytest.raises(TrainingError, match="no parameter is named by no such parameter"):
        tiny.run("pretrain", tmp_path, hardware=hardware)
