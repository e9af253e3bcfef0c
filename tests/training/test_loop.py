"""The loop: stopping and going on changes nothing; what cannot go on says why."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glfa_jax.config import Hardware
from glfa_jax.errors import TrainingError
from glfa_jax.training import checkpoints
from glfa_jax.training.checkpoints import latest_step, load_trained, read_done
from glfa_jax.training.logs import read_log
from tests.training import toy

ROOT = Path(__file__).parents[2]


def equal(a, b) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert jax.tree.structure(a) == jax.tree.structure(b)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Four steps without a stop."""
    folder = tmp_path_factory.mktemp("whole")
    batches = toy.Batches()
    state = toy.run(folder, steps=4, batches=batches)
    return folder, jax.device_get(state), batches.seen


def test_going_on_equals_never_having_stopped(whole, tmp_path):
    folder, state, seen = whole
    early, late = toy.Batches(), toy.Batches()
    toy.run(tmp_path, steps=2, batches=early)
    equal(jax.device_get(toy.run(tmp_path, steps=4, batches=late)), state)
    assert early.seen + late.seen == seen == [0, 1, 2, 3]
    strip = [(line["step"], line["metrics"]["loss"]) for line in read_log(tmp_path)]
    assert strip == [(line["step"], line["metrics"]["loss"]) for line in read_log(folder)]
    assert [step for step, _ in strip] == [1, 2, 3, 4]


def test_every_step_has_its_own_dropout(tmp_path):
    class Same(toy.Batches):
        def __next__(self):
            self.index = 0
            return super().__next__()

    toy.run(tmp_path, steps=2, batches=Same(), learning_rate=1e-30, weight_decay=0.0)
    first, second = (line["metrics"]["loss"] for line in read_log(tmp_path))
    assert abs(first - second) > 1e-3


def test_killed_and_started_again_equals_never_killed(whole, tmp_path):
    command = [sys.executable, "-m", "tests.training.toy", str(tmp_path), "4", "0.5"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "checkpoints" / "2").exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert read_done(tmp_path) is None
    batches = toy.Batches()
    equal(jax.device_get(toy.run(tmp_path, steps=4, batches=batches)), whole[1])
    assert batches.seen == [2, 3]
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2, 3, 4]


def test_line_cut_off_by_a_kill_is_dropped(tmp_path):
    toy.run(tmp_path, steps=2)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 3, "time": 0, "metrics": {}}\n{"step": 4, "ti')
    toy.run(tmp_path, steps=3)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert "loss" in lines[2]["metrics"]


def test_finished_stage_is_skipped_and_handed_on(whole, capsys):
    folder, state, _ = whole
    batches = toy.Batches()
    equal(jax.device_get(toy.run(folder, steps=4, batches=batches)), state)
    assert batches.seen == []
    assert "toy: finished already, step 4" in capsys.readouterr().out
    equal(load_trained(folder), state.params)
    assert read_done(folder).step == 4
    assert read_done(folder).metrics["loss"] == read_log(folder)[-1]["metrics"]["loss"]


def test_unfinished_stage_is_not_handed_on(tmp_path):
    with pytest.raises(TrainingError, match="not finished"):
        load_trained(tmp_path)


def test_frozen_parameters_have_no_state(whole):
    _, state, _ = whole
    moments = [x.shape for x in jax.tree.leaves(state.opt_state) if x.ndim]
    assert sorted(moments) == sorted(2 * [x.shape for x in jax.tree.leaves(state.params) if x.ndim])
    assert "embed" not in state.params
    described = checkpoints._about(whole[0] / "checkpoints" / "4")["arrays"]
    assert not [name for name in described if "embed" in name]


def test_ready_parameters_survive(tmp_path):
    params = toy.init(jax.random.key(0))
    before = jax.device_get(params)
    state = toy.run(tmp_path, steps=1, init=params)
    equal(jax.device_get(params), before)
    assert np.any(jax.device_get(state.params["scale"]) != before["scale"])


@pytest.mark.filterwarnings("ignore:.*NaN.*")
def test_not_finite_stops(tmp_path):
    with pytest.raises(TrainingError) as error:
        toy.run(tmp_path, steps=8, batches=toy.Batches(poison=4))
    message = str(error.value)
    assert "loss is nan at step 5" in message
    assert "last good checkpoint: step 4" in message
    assert read_done(tmp_path) is None
    assert np.isfinite(checkpoints.restore_params(tmp_path)["scale"])


def test_data_that_end_say_so(tmp_path):
    class Short(toy.Batches):
        def __next__(self):
            if self.index == 1:
                raise StopIteration
            return super().__next__()

    with pytest.raises(TrainingError, match="data ended before step 2 of 4"):
        toy.run(tmp_path, steps=4, batches=Short())


def test_fewer_steps_than_trained_are_rejected(whole):
    with pytest.raises(TrainingError, match="4 steps already, more than the 3"):
        toy.run(whole[0], steps=3)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"seed": 4}, "seed: 4 | 3"),
        ({"fingerprint": {"data": "other"}}, "data: other | toy"),
        ({"learning_rate": 0.5}, "learning_rate"),
        ({"init": lambda key: {"scale": toy.init(key)["scale"]}}, "params/layers.0/kernel: absent"),
    ],
)
def test_another_runs_checkpoint_is_rejected(whole, options, key):
    with pytest.raises(TrainingError) as error:
        toy.run(whole[0], steps=4, **options)
    assert key in str(error.value)
    assert "belongs to another run" in str(error.value)


def test_longer_run_is_rejected_where_the_rate_depends_on_its_length(tmp_path):
    toy.run(tmp_path, steps=2, decay="cosine")
    with pytest.raises(TrainingError, match="belongs to another run"):
        toy.run(tmp_path, steps=4, decay="cosine")


def test_eval_hook_is_logged_and_changes_nothing(whole, tmp_path):
    state = toy.run(tmp_path, steps=4, eval_hook=lambda step, state: {"twice": 2 * step})
    equal(jax.device_get(state), whole[1])
    logged = {x["step"]: x["metrics"].get("eval/twice") for x in read_log(tmp_path)}
    assert logged == {1: None, 2: 4.0, 3: None, 4: 8.0}


_TWO_DEVICES = """
import sys
from pathlib import Path
import jax
from glfa_jax.config import Hardware
from tests.training import toy
assert jax.device_count() == 2
root = Path(sys.argv[1])
toy.run(root / "data", steps=3)
pieces = Hardware(mesh={"fsdp": 2}, shard_from_bytes=0)
state = toy.run(root / "fsdp", steps=3, hardware=pieces)
for tree in (state.params, state.opt_state[1].mu):
    kernel = tree["layers.0"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (5, 8), kernel.sharding
"""


def test_two_devices_equal_one(tmp_path):
    env = os.environ | {"JAX_NUM_CPU_DEVICES": "2"}
    command = [sys.executable, "-c", _TWO_DEVICES, str(tmp_path)]
    subprocess.run(command, cwd=ROOT, env=env, check=True)
    one = jax.device_get(toy.run(tmp_path / "one", steps=3).params)
    for name in ("data", "fsdp"):
        two = load_trained(tmp_path / name)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6, rtol=0), two, one)
        # A checkpoint of two devices restores on one.
        equal(jax.device_get(toy.run(tmp_path / name, steps=3).params), two)


def test_another_precision_of_the_frozen_part_goes_on(tmp_path, monkeypatch):
    """What trains is restored as it was; from there, frozen numbers are the rounded ones."""

    def run(name, *, steps, value=0.3, **hardware):
        frozen = {"embed": {"kernel": np.eye(toy.WIDTH, dtype=np.float32) * np.float32(value)}}
        monkeypatch.setattr(toy, "frozen", lambda: frozen)
        state = toy.run(tmp_path / name, steps=steps, hardware=Hardware(**hardware))
        return jax.device_get(state), [x["metrics"]["loss"] for x in read_log(tmp_path / name)]

    _, whole = run("whole", steps=4)
    before, _ = run("other", steps=2)
    equal(before.params, load_trained(tmp_path / "other"))
    state, losses = run("other", steps=4, frozen_dtype="bfloat16")
    assert losses[:2] == whole[:2]
    assert losses[2] != whole[2]
    run("rounded", steps=2)
    rounded = float(jnp.bfloat16(0.3))
    expected, theirs = run("rounded", steps=4, value=rounded)
    equal(state, expected)
    assert losses == theirs


def test_sigterm_saves_the_step_and_ends_with_75(whole, tmp_path):
    code = (
        "import sys; from pathlib import Path; from glfa_jax.cli import guarded; "
        "from tests.training import toy; "
        "sys.exit(guarded(lambda: toy.run(Path(sys.argv[1]), steps=4, save_every=100, "
        "batches=toy.Batches(pause=0.7))))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not read_log(tmp_path):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "asked to stop, saved at step" in errors
    assert "the same command goes on from here" in errors
    assert 1 <= checkpoints.latest_step(tmp_path) <= 3
    equal(jax.device_get(toy.run(tmp_path, steps=4)), whole[1])


@pytest.mark.parametrize("when", ["save", "wait_until_finished"])
def test_a_checkpoint_that_cannot_be_written_does_not_stop_training(
    whole, tmp_path, capsys, monkeypatch, when
):
    """The disk is full when step 2 is saved, at once or in the background."""
    original = getattr(checkpoints.ocp.CheckpointManager, when)
    calls = []

    def full(self, *arguments, **options):
        calls.append(arguments)
        if len(calls) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(self, *arguments, **options)

    monkeypatch.setattr(checkpoints.ocp.CheckpointManager, when, full)
    state = toy.run(tmp_path, steps=4)
    equal(jax.device_get(state), whole[1])
    assert "could not be written (the disk is full); going on" in capsys.readouterr().err
    assert checkpoints.latest_step(tmp_path) == 4


def test_a_disk_that_takes_no_more_while_a_checkpoint_is_written(
    tmp_path, capsys, caplog, monkeypatch
):
    """A real limit of the system, met by the storage layer's own threads in the background."""
    big = partial(toy.init, hidden=4096)
    expected = toy.run(tmp_path / "whole", steps=4, init=big)
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    met = []

    def limit(step, state):
        if step == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, most[1]))
        return {}

    def lifted(self, error, kept=checkpoints.Checkpoints._give_up):
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
        met.append(latest_step(tmp_path / "run"))
        kept(self, error)

    monkeypatch.setattr(checkpoints.Checkpoints, "_give_up", lifted)
    try:
        state = toy.run(tmp_path / "run", steps=4, init=big, eval_hook=limit)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert met == [None]
    said = capsys.readouterr().err
    assert "could not be written (the disk is full)" in said
    assert not any(record.levelname == "ERROR" for record in caplog.records)
    assert "going on, the next will be tried" in said
    equal(jax.device_get(state), jax.device_get(expected))
    assert latest_step(tmp_path / "run") == 4
    equal(load_trained(tmp_path / "run"), load_trained(tmp_path / "whole"))


def test_the_last_checkpoint_must_be_written(tmp_path, monkeypatch):
    toy.run(tmp_path, steps=2)

    def full(self, *arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoints.ocp.CheckpointManager, "save", full)
    with pytest.raises(TrainingError, match="the last good one is 2; make room and run the same"):
        toy.run(tmp_path, steps=4)
    assert read_done(tmp_path) is None


@pytest.mark.parametrize("precision", [None, "high", "highest"])
def test_products_have_the_precision_that_is_asked_for(tmp_path, monkeypatch, precision):
    found = []

    def loss_fn(*given):
        found.append(jax.config.jax_default_matmul_precision)
        return toy_loss(*given)

    toy_loss = toy.loss_fn
    monkeypatch.setattr(toy, "loss_fn", loss_fn)
    toy.run(tmp_path, steps=1, hardware=Hardware(matmul_precision=precision))
    as_set = jax.config.jax_default_matmul_precision
    assert {*found} == {precision or as_set}
