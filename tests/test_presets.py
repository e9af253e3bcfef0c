"""Presets of the loss scales of stage 2: what they are, what wins, and files from before them."""

import pytest
import yaml

from glfa_jax import config
from glfa_jax.config import Cotrain
from glfa_jax.errors import TrainingError
from glfa_jax.evaluation.trained import training_of
from glfa_jax.training.loop import check_unchanged, validate_unchanged
from tests.test_config import MINIMAL


@pytest.fixture
def load(tmp_path):
    def read(*overrides: str, text: str = MINIMAL) -> config.Config:
        path = tmp_path / "given.yaml"
        path.write_text(text, encoding="utf-8")
        return config.load(path, overrides)

    return read


def scales(stage: Cotrain) -> tuple[float, float, float]:
    return stage.glfa_scale, stage.regularisation_scale, stage.alignment_scale


def test_both_are_what_their_sources_say():
    assert scales(Cotrain()) == scales(Cotrain(preset="code")) == (1, 1, 0.1)
    assert scales(Cotrain(preset="paper")) == (0.5, 1, 1)
    assert Cotrain() == Cotrain(preset="code") != Cotrain(preset="paper")


@pytest.mark.parametrize(
    ("given", "expected", "preset"),
    [
        ({"glfa_scale": 0.5, "alignment_scale": 1}, (0.5, 1, 1), "paper"),
        ({"glfa_scale": 1, "alignment_scale": 0.1}, (1, 1, 0.1), "code"),
        ({"glfa_scale": 0}, (0, 1, 0.1), None),
        ({"preset": "paper", "glfa_scale": 0}, (0, 1, 1), None),
        ({"preset": "paper", "glfa_scale": 0.5}, (0.5, 1, 1), "paper"),
        ({"preset": None, "alignment_scale": 0.3}, (1, 1, 0.3), None),
        ({"preset": None}, (1, 1, 0.1), "code"),
    ],
)
def test_scales_win_and_the_name_is_of_what_they_amount_to(given, expected, preset):
    stage = Cotrain(**given)
    assert (scales(stage), stage.preset) == (expected, preset)


def test_a_preset_of_which_nothing_is_left_is_rejected(load):
    own = ["cotrain.glfa_scale=1", "cotrain.regularisation_scale=1", "cotrain.alignment_scale=0.1"]
    assert load("cotrain.preset=code", *own).cotrain.preset == "code"
    with pytest.raises(
        config.ConfigError, match=r"cotrain\.preset: paper, but all scales beside it"
    ):
        load("cotrain.preset=paper", *own)


def test_either_can_be_overridden_in_what_was_written(load, tmp_path):
    """As a study and a continued run do."""
    paper = load("cotrain.preset=paper")
    (tmp_path / "config.yaml").write_text(config.dump(paper))
    again = config.load(tmp_path / "config.yaml")
    assert again == paper
    assert config.overridden(again, ["cotrain.preset=code"]) == load()
    without = config.overridden(again, ["cotrain.glfa_scale=0"])
    assert (scales(without.cotrain), without.cotrain.preset) == ((0, 1, 1), None)
    assert config.load(tmp_path / "config.yaml", ["cotrain.glfa_scale=0"]) == without
    (tmp_path / "own.yaml").write_text(config.dump(without))
    assert config.load(tmp_path / "own.yaml") == without


def test_a_run_from_before_presets_is_the_run_of_its_scales(load, tmp_path):
    for folder, preset in (("code", "code"), ("paper", "paper")):
        ours = load(f"cotrain.preset={preset}")
        tree = yaml.safe_load(config.dump(ours))
        tree["cotrain"] |= config.PRESETS[preset]
        for key in ("preset", "encoder_from", "generator_from", "temporal_dropout"):
            del tree["cotrain"][key]
        del tree["pretrain"]["start_from"]
        del tree["contrast"]["start_from"], tree["contrast"]["logit_scale_max"]
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.yaml").write_text(yaml.safe_dump(tree))
        check_unchanged(tmp_path / folder, ours)
    with pytest.raises(TrainingError, match=r"cotrain\.preset: code \| paper"):
        validate_unchanged(tmp_path / "paper", load())


def test_what_checkpoints_compare_is_as_it_was_written_before_presets():
    """Of a run that uses none of the options that came later."""
    assert Cotrain().comparable() == {
        "steps": 18000,
        "batch_size": 16,
        "learning_rate": 3e-5,
        "weight_decay": 0.01,
        "betas": [0.9, 0.999],
        "clip_norm": 1.0,
        "warmup_steps": 0,
        "decay": "constant",
        "dropout": 0.0,
        "log_every": 10,
        "save_every": 500,
        "keep": 2,
        "keep_best": 0,
        "accumulate": 1,
        "trainable": "attention",
        "lora": {"rank": 8, "scale": 1.0},
        "glfa_scale": 1.0,
        "regularisation_scale": 1.0,
        "alignment_scale": 0.1,
        "paired_fraction": 1.0,
        "offset_noise": 0.0,
        "zero_terminal_snr": False,
    }
    assert "preset" not in Cotrain(preset="paper").comparable()
    assert Cotrain(preset="paper").comparable()["glfa_scale"] == 0.5
    assert Cotrain(temporal_dropout=0.1).comparable()["temporal_dropout"] == 0.1
    assert "start_from" not in config.Pretrain().comparable()
    assert {"start_from", "logit_scale_max"}.isdisjoint(config.Contrast().comparable())


def test_scores_say_the_preset_and_the_scales(load):
    told = training_of(load("cotrain.preset=paper"), checkpoint=1)
    assert (told["cotrain.preset"], told["cotrain.glfa_scale"]) == ('"paper"', "0.5")
