"""Checkpoints: damage of any kind is noticed, and the one before is taken."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from glfa_jax.errors import InputError, TrainingError
from glfa_jax.training.checkpoints import Checkpoints, mark_done, read_done, restore_params
from glfa_jax.training.state import TrainState


def state(value: float) -> TrainState:
    noise = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    params = {"blocks.0": {"kernel": noise + np.float32(value)}}
    return jax.device_put(
        TrainState(
            step=np.int32(value), params=params, opt_state=({"mu": np.float32(value)}, np.int32(1))
        )
    )


def abstract() -> TrainState:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state(0)
    )


def opened(folder: Path, *, keep: int = 2) -> Checkpoints:
    return Checkpoints(folder, keep=keep, fingerprint={"seed": 1})


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    checkpoints = opened(folder)
    for step in (1, 2, 3):
        checkpoints.save(
            step, state=state(step), data_state={"next_index": step}, metrics={"m": 0.5}
        )
    checkpoints.close()
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "run"))


def biggest(folder: Path) -> Path:
    return max((x for x in folder.rglob("*") if x.is_file()), key=lambda x: x.stat().st_size)


def truncate(item: Path) -> None:
    path = biggest(item)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(item: Path) -> None:
    path = biggest(item)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def delete(item: Path) -> None:
    biggest(item).unlink()


DAMAGES = {
    "params truncated": lambda x: truncate(x / "params"),
    "params flipped bit": lambda x: flip(x / "params"),
    "params file missing": lambda x: delete(x / "params"),
    "params missing": lambda x: shutil.rmtree(x / "params"),
    "opt_state missing": lambda x: shutil.rmtree(x / "opt_state"),
    "about missing": lambda x: shutil.rmtree(x / "about"),
    "about truncated": lambda x: truncate(x / "about"),
    "params index missing": lambda x: (x / "params" / "manifest.ocdbt").unlink(),
    "emptied": lambda x: (shutil.rmtree(x), x.mkdir()),
    "another step's arrays": lambda x: (
        shutil.rmtree(x / "params"),
        shutil.copytree(x.parent / "2" / "params", x / "params"),
    ),
}


def test_round_trip(folder):
    checkpoints = opened(folder)
    assert checkpoints.latest() == 3
    found = checkpoints.restore_latest(abstract())
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, found.state, state(3))
    assert jax.tree.structure(found.state) == jax.tree.structure(state(3))
    assert found.data_state == {"next_index": 3}
    assert found.metrics == {"m": 0.5}
    assert sorted(x.name for x in (folder / "checkpoints").iterdir()) == ["2", "3"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_broken_falls_back_and_says_so(folder, damage, capsys):
    DAMAGES[damage](folder / "checkpoints" / "3")
    checkpoints = opened(folder)
    found = checkpoints.restore_latest(abstract())
    jax.tree.map(np.testing.assert_array_equal, found.state, state(2))
    said = capsys.readouterr().err
    assert "checkpoint 3 is broken" in said
    assert "going back to 2" in said
    # The place is free again, and what was there is kept aside.
    checkpoints.save(3, state=state(3), data_state={}, metrics={})
    checkpoints.close()
    np.testing.assert_array_equal(
        restore_params(folder)["blocks.0"]["kernel"], state(3).params["blocks.0"]["kernel"]
    )
    assert (folder / "broken" / "3").is_dir()


def test_unfinished_is_not_taken_and_says_so(folder, capsys):
    """What is being written has another name until it is whole."""
    unfinished = folder / "checkpoints" / "3.orbax-checkpoint-tmp"
    (folder / "checkpoints" / "3").rename(unfinished)
    checkpoints = opened(folder)
    found = checkpoints.restore_latest(abstract())
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, found.state, state(2))
    assert "checkpoint 3 was not finished, removing it" in capsys.readouterr().err
    assert [x.name for x in (folder / "checkpoints").iterdir()] == ["2"]


def test_all_broken_raises_and_moves_nothing(folder):
    for step in ("2", "3"):
        truncate(folder / "checkpoints" / step / "params")
    checkpoints = opened(folder)
    with pytest.raises(TrainingError, match="no checkpoint can be read"):
        checkpoints.restore_latest(abstract())
    checkpoints.close()
    assert not (folder / "broken").exists()
    with pytest.raises(TrainingError, match="checkpoint 3 is broken"):
        restore_params(folder)


def test_nothing_there(tmp_path):
    checkpoints = opened(tmp_path)
    assert checkpoints.restore_latest(abstract()) is None
    checkpoints.close()
    with pytest.raises(TrainingError, match="holds no checkpoint"):
        restore_params(tmp_path)


def test_other_type_is_rejected_not_cast(folder):
    checkpoints = opened(folder)
    other = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, "bfloat16", sharding=x.sharding), abstract()
    )
    with pytest.raises(TrainingError, match=r"params/blocks.0/kernel.*bfloat16.*float32"):
        checkpoints.restore_latest(other)
    checkpoints.close()


def test_position_that_is_no_json_is_rejected(tmp_path):
    checkpoints = opened(tmp_path)
    with pytest.raises(TrainingError, match="must be JSON"):
        checkpoints.save(1, state=state(1), data_state=b"position", metrics={})
    checkpoints.close()


def test_names_that_storage_confuses_are_rejected(tmp_path):
    twins = {"a.b": {"c": np.float32(1)}, "a": {"b.c": np.float32(2)}}
    checkpoints = opened(tmp_path)
    with pytest.raises(TrainingError, match=r"cannot tell apart: params\.a\.b\.c"):
        checkpoints.save(
            1, state=TrainState(np.int32(1), jax.device_put(twins), ()), data_state={}, metrics={}
        )
    checkpoints.close()


def about(folder: Path, step: int) -> Path:
    return next((folder / "checkpoints" / str(step)).rglob("about/metadata"))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda about: about["data"].update(next_index=7),
        lambda about: about.pop("versions"),
        lambda about: about.update(arrays=[]),
        lambda about: about["checksums"].popitem(),
        lambda about: about["fingerprint"].update(seed=2),
    ],
    ids=["data", "missing", "type", "checksum", "fingerprint"],
)
def test_metadata_that_are_not_what_was_written_are_damage(folder, spoil, capsys):
    path = about(folder, 3)
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))
    checkpoints = opened(folder)
    found = checkpoints.restore_latest(abstract())
    checkpoints.close()
    assert found is not None
    assert (int(found.state.step), found.data_state) == (2, {"next_index": 2})
    assert "checkpoint 3 is broken" in capsys.readouterr().err


def test_a_checkpoint_of_an_earlier_version_has_no_digest_and_is_read(folder):
    path = about(folder, 3)
    content = json.loads(path.read_text())
    del content["digest"]
    path.write_text(json.dumps(content))
    checkpoints = opened(folder)
    found = checkpoints.restore_latest(abstract())
    checkpoints.close()
    assert found is not None
    assert int(found.state.step) == 3


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"step": 1}',
        '{"step": "1", "metrics": {}}',
        "[" * 10**5,
        "\xff",
        '{"step": 1, "metrics": {"loss": "low"}}',
    ],
)
def test_a_sign_of_the_end_that_is_damaged_is_named(tmp_path, content):
    mark_done(tmp_path, step=3, metrics={"loss": 0.5})
    assert read_done(tmp_path) == (3, {"loss": 0.5})
    (tmp_path / "done.json").write_bytes(content.encode("latin1"))
    with pytest.raises(InputError, match=r"done\.json: "):
        read_done(tmp_path)
