"""A run that is killed or stopped and started again is the run that was left alone."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from glfa_jax import config, system
from glfa_jax.cli import EXIT_STOPPED
from glfa_jax.convert import pretrained
from glfa_jax.data import DataError, pipeline
from glfa_jax.errors import TrainingError
from glfa_jax.preparation import prepare
from glfa_jax.stages import contrast, cotrain
from glfa_jax.training import checkpoints
from glfa_jax.training.checkpoints import latest_step
from glfa_jax.training.logs import read_log
from glfa_jax.training.loop import check_unchanged, validate_unchanged
from tests.data.conftest import settings as data_settings
from tests.data.conftest import write_small_study
from tests.stages import lasting, tiny
from tests.stages.matrix import LIMIT, ROOT, free_port

ONE = "1,1,1"
CUT = "1,2,1"  # every parameter that can be is in two pieces


def start(store, folder: Path, place="0/1", mesh=ONE, kind="", devices=1) -> subprocess.Popen:
    arguments = [str(store.path), str(folder), place, mesh, kind]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.stages.lasting", *arguments],
        cwd=ROOT,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(*processes: subprocess.Popen, code: int = 0) -> list[str]:
    """What each said on standard error."""
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [code] * len(processes), said
    return said


def start_two(store, folder: Path, kind: str = "") -> list[subprocess.Popen]:
    port = free_port()
    return [start(store, folder, f"{i}/2@127.0.0.1:{port}", CUT, kind) for i in range(2)]


def resume(store, folder: Path):
    """By this process; the state at the end. What is finished is only read."""
    return jax.device_get(lasting.run(store, folder, hardware=config.Hardware()))


def losses(folder: Path) -> list[float]:
    lines = read_log(folder)
    assert [line["step"] for line in lines] == list(range(1, lasting.STEPS + 1))
    return [line["metrics"]["loss"] for line in lines]


def position(folder: Path) -> dict:
    return checkpoints._about(folder / "checkpoints" / str(lasting.STEPS))["data"]


def same(store, folder: Path, whole, *, limit: float = 0.0) -> None:
    """All of the state, every loss and the place in the data; bit for bit unless limited."""
    left_alone, expected = whole
    state = resume(store, folder)
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    for a, b in zip(*map(jax.tree.leaves, (state, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=limit)
    np.testing.assert_allclose(losses(folder), losses(left_alone), rtol=0, atol=limit)
    assert position(folder) == position(left_alone)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    study = write_small_study(folder / "bids")
    return prepare(data_settings(study, folder / "a.zarr"), progress=False)


@pytest.fixture(scope="module")
def whole(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    state = resume(store, folder)
    assert len(set(losses(folder))) == lasting.STEPS
    return folder, state


@pytest.fixture(scope="module")
def killed_in_a_step(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("step")
    end(start(store, folder, kind="step"), code=-signal.SIGKILL)
    assert latest_step(folder) == 10
    return folder


@pytest.fixture
def killed(killed_in_a_step, tmp_path):
    return Path(shutil.copytree(killed_in_a_step, tmp_path / "run"))


@pytest.fixture(scope="module")
def stopped(store, killed_in_a_step, tmp_path_factory):
    """Gone on with by two processes, of which one is asked to stop in step 13."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    shutil.copytree(killed_in_a_step, folder)
    said = end(*start_two(store, folder, "stop"), code=EXIT_STOPPED)
    step = latest_step(folder)
    assert 13 <= step < lasting.STEPS
    assert all(f"asked to stop, saved at step {step}" in text for text in said)
    return folder


def test_killed_in_a_step(store, killed, whole):
    assert [line["step"] for line in read_log(killed)][-1] >= 11  # done anew, and so dropped
    same(store, killed, whole)


def test_killed_while_a_checkpoint_is_written(store, tmp_path, whole):
    end(start(store, tmp_path, kind="save"), code=-signal.SIGKILL)
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert "5" in names
    assert "10" not in names
    same(store, tmp_path, whole)


def test_on_another_mesh(store, killed, whole):
    end(start(store, killed, mesh=CUT, devices=2))
    same(store, killed, whole, limit=LIMIT)


def test_by_two_processes_and_again_by_one(store, stopped, tmp_path, whole):
    """SIGTERM reached one of the two: both saved the same step, and one process goes on from it."""
    folder = Path(shutil.copytree(stopped, tmp_path / "run"))
    same(store, folder, whole, limit=LIMIT)


def test_damage_that_one_of_two_processes_meets_stops_neither(store, stopped, tmp_path, whole):
    folder = Path(shutil.copytree(stopped, tmp_path / "run"))
    step = latest_step(folder)
    said = end(*start_two(store, folder, "blind"))
    reasons = "another process cannot read it", "OSError: unreadable from here"
    for text, reason in zip(said, reasons, strict=True):
        assert f"checkpoint {step} is broken ({reason}); going back to 10" in text
    assert (folder / "broken" / str(step)).is_dir()
    same(store, folder, whole, limit=LIMIT)


@pytest.mark.parametrize("count", [3, 16])
def test_more_processes_than_a_batch_has_rows_for(store, count):
    """In one sentence: what, and of what it must be a multiple."""
    options = {"seed": 0, "process_index": 0, "process_count": count}
    subjects = ("01", "02")
    with pytest.raises(DataError, match=f"batch_size: 8 is no multiple of {count} processes"):
        pipeline.volumes(store, subjects=subjects, batch_size=8, **options)
    with pytest.raises(DataError, match=f"8 is no multiple of 2 subjects x {count} processes"):
        pipeline.batches(
            store,
            subjects=subjects,
            split="train",
            batch_size=8,
            tokenize=lambda captions: np.zeros((len(captions), 1), int),
            augment=None,
            shuffle=True,
            repeat=True,
            **options,
        )


def test_more_rows_than_samples_are_filled_by_showing_them_again(store):
    stream = pipeline.volumes(store, subjects=("01",), batch_size=64, seed=0)
    assert len(next(stream)["fmri"]) == 64
    assert len(np.unique(next(stream)["fmri"], axis=0)) < 64


@pytest.fixture
def settings(store, tmp_path):
    small = {"patch_size": 8, "width": 8, "depth": 1, "decoder_depth": 1, "num_heads": 2}
    return config.Config(
        name="parts",
        run_dir=tmp_path / "run",
        foundation=tmp_path / "none",
        data=data_settings(tmp_path, store.path),
        protocol={"train_subjects": ["01"], "test_subjects": ["02"]},
        encoder={**small, "latent": 4},
        conditioning={"hidden_tokens": 4, "num_heads": 2},
        alignment={"kernel_size": 3},
    )


def test_parts_go_on_into_the_next_stage(store, settings):
    """The autoencoder's encoder into stage 1, all of stage 1 into stage 2: the very numbers."""
    autoencoder = system.autoencoder(settings)
    shapes = pretrained.parameter_shapes("fmri_autoencoder", autoencoder)
    params = tiny.random_params(shapes)
    folder = system.model_folder(settings, "pretrain")
    system.save_own("fmri_autoencoder", folder, autoencoder, params)
    module = system.fmri_encoder(settings, clip_dim=6, tokens=5, dropout=0.1, aligned=False)
    first = contrast.init_params(settings, module)
    taken = first["fmri_encoder"]["transformer"]
    jax.tree.map(np.testing.assert_array_equal, taken, {name: params[name] for name in taken})
    assert len(jax.tree.leaves(taken)) > 10

    first = tiny.random_params(first)
    system.save_own("fmri_encoder", system.model_folder(settings, "contrast"), module, first)
    whole, second = cotrain.build_encoder(settings, store)
    jax.tree.map(np.testing.assert_array_equal, {name: second[name] for name in first}, first)
    assert second.keys() - first.keys() == {"func_align_layer"}
    shapes = pretrained.parameter_shapes("fmri_encoder", whole)
    assert jax.tree.structure(shapes) == jax.tree.structure(second)


def test_other_hardware_goes_on_and_another_seed_does_not(settings, tmp_path):
    validate_unchanged(tmp_path, settings)
    there = {"mesh": {"fsdp": 2}, "frozen_dtype": "bfloat16", "shard_from_bytes": 7}
    moved = settings.model_copy(update={"hardware": config.Hardware(**there)})
    check_unchanged(tmp_path, moved)
    with pytest.raises(TrainingError, match=r"seed: 3 \| 0; use another folder") as error:
        check_unchanged(tmp_path, moved.model_copy(update={"seed": 3}))
    assert "hardware." not in str(error.value)
