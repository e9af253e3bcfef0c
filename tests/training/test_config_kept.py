"""A folder keeps its configuration."""

import pytest

from glfa_jax import config
from glfa_jax.errors import TrainingError
from glfa_jax.training.loop import validate_unchanged

_YAML = """
name: toy
run_dir: runs
foundation: foundation
data: {root: data, store: store, subjects: [a, b]}
protocol: {train_subjects: [a], test_subjects: [b]}
"""


@pytest.fixture
def load(tmp_path):
    (tmp_path / "given.yaml").write_text(_YAML)
    return lambda *changes: config.load(tmp_path / "given.yaml", changes)


def test_same_and_harmless_changes_pass(load, tmp_path):
    folder = tmp_path / "run"
    validate_unchanged(folder, load())
    assert config.load(folder / "config.yaml") == load()
    validate_unchanged(folder, load())
    validate_unchanged(
        folder,
        load("pretrain.log_every=3", "cotrain.steps=20000", "evaluation.clips=3", "run_dir=b"),
    )
    validate_unchanged(folder, load("cotrain.learning_rate=1.0"), ignore=("cotrain.",))


def test_who_is_decoded_is_no_part_of_the_training(load, tmp_path):
    validate_unchanged(tmp_path, load("protocol.pretraining=published"))
    other = ("protocol.test_store=b.zarr", "protocol.test_subjects=[c]")
    for decoded in (("protocol.test_subjects=[a]",), (*other, "protocol.name=cross-dataset")):
        validate_unchanged(tmp_path, load("protocol.pretraining=published", *decoded))
    with pytest.raises(TrainingError, match=r"protocol.pretraining: strict \| published"):
        validate_unchanged(tmp_path, load())
    with pytest.raises(TrainingError, match=r"protocol.train_subjects: \['b'\] \| \['a'\]"):
        validate_unchanged(
            tmp_path, load("protocol.pretraining=published", "protocol.train_subjects=[b]")
        )


def test_other_changes_are_listed(load, tmp_path):
    validate_unchanged(tmp_path / "run", load())
    with pytest.raises(TrainingError) as error:
        validate_unchanged(
            tmp_path / "run", load("seed=5", "encoder.width=64", "pretrain.log_every=3")
        )
    assert "seed: 5 | 0" in str(error.value)
    assert "encoder.width: 64 | 1024" in str(error.value)
    assert "log_every" not in str(error.value)


def test_length_matters_only_where_the_rate_depends_on_it(load, tmp_path):
    validate_unchanged(tmp_path / "run", load("cotrain.decay=cosine"))
    with pytest.raises(TrainingError, match=r"cotrain.steps: 20000 \| 18000"):
        validate_unchanged(
            tmp_path / "run",
            load("cotrain.decay=cosine", "cotrain.steps=20000", "pretrain.steps=7"),
        )


def test_unreadable_configuration_is_not_overwritten(load, tmp_path):
    (tmp_path / "config.yaml").write_text("name: toy\nold_option: 1\n")
    with pytest.raises(TrainingError, match="old_option: unknown key"):
        validate_unchanged(tmp_path, load())
    assert "old_option" in (tmp_path / "config.yaml").read_text()
