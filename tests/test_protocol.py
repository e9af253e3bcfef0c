"""Protocols: what subjects and stores amount to, and which stores cannot be decoded."""

import shlex
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from glfa_jax import config, protocol, system
from glfa_jax.errors import InputError
from glfa_jax.subject_alignment import fitted_stage
from tests.test_config import MINIMAL


@pytest.fixture
def load(tmp_path):
    def read(*overrides: str) -> config.Config:
        path = tmp_path / "given.yaml"
        path.write_text(MINIMAL, encoding="utf-8")
        return config.load(path, ["data.map_size=32", "data.frames=4", *overrides])

    return read


@pytest.mark.parametrize(
    ("overrides", "kind"),
    [
        ([], "cross-subject"),
        (['protocol.test_subjects=["01"]'], "within-subject"),
        (['protocol.test_subjects=["01", "02"]'], "within-subject"),
        (['protocol.test_subjects=["01", "03"]'], "mixed"),
        (["protocol.test_store=other", 'protocol.test_subjects=["x7"]'], "cross-dataset"),
    ],
)
def test_protocols_are_what_subjects_and_stores_amount_to(load, overrides, kind):
    assert load(*overrides).protocol.kind() == kind
    if kind != "mixed":
        assert load(*overrides, f"protocol.name={kind}").protocol.name == kind
    wrong = "cross-subject" if kind == "within-subject" else "within-subject"
    with pytest.raises(config.ConfigError, match=f"protocol.name: {wrong}, but .* is {kind}"):
        load(*overrides, f"protocol.name={wrong}")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            [
                *("protocol.test_store=other", 'protocol.test_subjects=["03", "01"]'),
                "alignment.per_subject=true",
            ],
            r"protocol.test_subjects: \['01'\] of other have names of protocol.train_subjects",
        ),
        (
            [
                *("protocol.test_store=other", 'protocol.test_subjects=["03", "01"]'),
                "evaluation.adapted_minutes=4",
            ],
            r"protocol.test_subjects: \['01'\] of other have names of protocol.train_subjects",
        ),
        (
            ["evaluation.adapted_minutes=4", 'protocol.test_subjects=["02", "01"]'],
            "evaluation.adapted_minutes: 4, but all of protocol.test_subjects .* are trained on",
        ),
    ],
)
def test_no_subject_goes_through_a_layer_of_another_of_its_name(load, overrides, said):
    with pytest.raises(config.ConfigError, match=said):
        load(*overrides)
    for one in overrides:
        load(one)


def test_layers_can_be_fitted_to_subjects_of_another_store_and_lie_apart(load):
    sets = ["protocol.test_store=data/new.zarr", 'protocol.test_subjects=["04"]']
    settings = load(*sets, "evaluation.adapted_minutes=4")
    assert system.results_folder(settings) == Path("runs/toy/on-new/adapted-4min")
    assert fitted_stage(settings, subject="04", minutes=4) == "adapt/on-new/04-4min"
    assert system.results_folder(load(*sets)) == Path("runs/toy/on-new")
    assert fitted_stage(load(), subject="03", minutes=0.5) == "adapt/03-0.5min"
    load(*sets, "alignment.per_subject=true")
    without_fmri = load(*sets, "adapt.method=anatomy", "evaluation.adapted_minutes=0")
    assert system.results_folder(without_fmri) == Path("runs/toy/on-new/adapted-anatomy")
    assert fitted_stage(without_fmri, subject="04", minutes=0) == "adapt/on-new/04-anatomy"


def test_of_subjects_that_are_mixed_some_have_a_layer_fitted(load):
    load("evaluation.adapted_minutes=4", 'protocol.test_subjects=["01", "03"]')


def store(**changes: Any) -> Any:
    """As much of a store as is looked at."""
    given = {"side": 32, "window": 5, "frames": 4, "subjects": ("01", "02", "03")} | changes
    identity = given.get("identity", "other")
    return SimpleNamespace(
        path="other.zarr",
        mask=np.ones((given["side"],) * 2),
        attributes=SimpleNamespace(
            window=given["window"], subjects=given["subjects"], identity=identity
        ),
        sample=(given["frames"], 8, 8, 3),
    )


def test_without_a_test_store_that_of_training_is_decoded(load):
    trained = store()
    assert protocol.decoded_store(load(), trained) is trained


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"side": 16}, r"maps of \(16, 16\), the decoder was trained on \(32, 32\)"),
        ({"window": 3}, "volumes a window of 3"),
        ({"frames": 6}, "frames a clip of 6"),
        ({"identity": "trained"}, "test_store: other.zarr holds the very data that were trained"),
        ({"subjects": ("01",)}, "protocol.test_subjects: 03 is not in other.zarr, which holds 01"),
    ],
)
def test_a_store_that_the_decoder_cannot_take_is_rejected(load, monkeypatch, changes, said):
    other = store(**changes)
    monkeypatch.setattr(protocol.Store, "open", lambda path: other)
    settings = load("protocol.test_store=other.zarr")
    if said is None:
        assert protocol.decoded_store(settings, store(identity="trained")) is other
    else:
        with pytest.raises(InputError, match=said):
            protocol.decoded_store(settings, store(identity="trained"))


def test_the_committed_configurations_decode_one_data_set_with_a_run_on_another(monkeypatch):
    """By the command that the header says."""
    root = Path(__file__).parents[1]
    file = root / "configs" / "fudan_fcvid.yaml"
    header = file.read_text().replace("#", "").replace("\\\n", " ").splitlines()
    (command,) = (line for line in header if "eval.sample" in line)
    words = shlex.split(command)
    overrides = [value for flag, value in pairwise(words) if flag == "--set"]
    settings = config.load(root / words[words.index("--config") + 1], overrides)
    assert settings.protocol.kind() == "cross-dataset"
    assert f"{system.results_folder(settings) / 'config.yaml'}" in file.read_text()
    there = config.load(file)
    assert settings.protocol.test_store == there.data.store
    assert settings.protocol.test_subjects == there.data.subjects

    def prepared(data: config.Data, **about: str) -> Any:
        sizes = {"side": data.map_size, "window": data.window, "frames": data.frames}
        return store(**sizes, subjects=data.subjects, **about)

    other = prepared(there.data)
    monkeypatch.setattr(protocol.Store, "open", lambda path: other)
    trained = prepared(settings.data, identity="trained")
    assert protocol.decoded_store(settings, trained) is other
    assert there.data.resolution == settings.data.resolution
    assert there.data.lag_seconds == settings.data.lag_seconds
