"""What scores.json tells of the training: what changes its numbers, and nothing else."""

from collections.abc import Callable
from pathlib import Path

import pytest

from glfa_jax import config
from glfa_jax.evaluation.trained import training_of
from glfa_jax.training.checkpoints import mark_done
from tests.test_config import MINIMAL


@pytest.fixture
def training(tmp_path) -> Callable[..., dict[str, str]]:
    path = tmp_path / "given.yaml"
    path.write_text(MINIMAL, encoding="utf-8")

    def of(*overrides: str) -> dict[str, str]:
        settings = config.load(path, [f"run_dir={tmp_path / 'run'}", *overrides])
        return training_of(settings, checkpoint=settings.cotrain.steps)

    return of


def changed(ours: dict[str, str], theirs: dict[str, str]) -> set[str]:
    return {key for key in ours | theirs if ours.get(key) != theirs.get(key)}


@pytest.mark.parametrize(
    ("override", "keys"),
    [
        ("contrast.steps=100", {"contrast.steps"}),
        ("cotrain.steps=100", {"cotrain.steps", "cotrain.checkpoint"}),
        ("cotrain.glfa_scale=0.5", {"cotrain.glfa_scale", "cotrain.preset"}),
        ("cotrain.temporal_dropout=0.1", {"cotrain.temporal_dropout"}),
        ("contrast.logit_scale_max=100", {"contrast.logit_scale_max"}),
        ("cotrain.lora.rank=2", {"cotrain.lora.rank"}),
        ("alignment.kernel_size=3", {"alignment.kernel_size"}),
        ("hardware.compute_dtype=bfloat16", {"hardware.compute_dtype"}),
        ("hardware.frozen_dtype=bfloat16", {"hardware.frozen_dtype"}),
        ("foundation=/elsewhere/zeroscope", {"foundation"}),
        ("without=[pretrain]", {"without"}),
    ],
)
def test_what_the_training_depends_on_is_reported(training, override, keys):
    assert changed(training(), training(override)) == keys


@pytest.mark.parametrize(
    "override",
    [
        *("seed=3", "name=other", "run_dir=/elsewhere", "foundation=/elsewhere/foundation"),
        *("data.root=/elsewhere", "data.latents=true", "hardware.mesh.fsdp=2"),
        *("hardware.remat=true", "evaluation.clips=7", "sweep.seeds=[1]"),
        *("pretrain.keep=5", "cotrain.log_every=1", "lea.alpha=1", "adapt.steps=7"),
    ],
)
def test_what_it_does_not_depend_on_is_not(training, override):
    assert not changed(training(), training(override))


def test_a_regression_tells_of_itself_alone(training):
    own = training("method=lea")
    assert changed(own, training("method=lea", "lea.alpha=1")) == {"lea.alpha"}
    assert not changed(own, training("method=lea", "contrast.steps=1", "lea.batch_size=2"))
    assert not any(key.startswith("cotrain") or "cotrain" in key for key in own)


def test_a_regression_with_a_generator_of_its_own_tells_of_stage_two(training):
    given = ("method=lea", "lea.cotrain_generator=true")
    own = training(*given)
    assert own["lea.cotrain_generator"] == "true"
    assert changed(own, training(*given, "cotrain.learning_rate=1")) == {"cotrain.learning_rate"}
    assert not changed(own, training(*given, "contrast.steps=1"))


def test_a_fitted_layer_tells_how_it_was_fitted(training):
    four = training("evaluation.adapted_minutes=4")
    assert changed(four, training("evaluation.adapted_minutes=1")) == {"evaluation.adapted_minutes"}
    assert changed(four, training("evaluation.adapted_minutes=4", "adapt.steps=7")) == {
        "adapt.steps"
    }
    encoder = training("evaluation.adapted_minutes=4", "adapt.encoder.steps=9")
    assert {key.rpartition(".")[0] for key in changed(four, encoder)} == {"adapt.encoder"}


def test_the_steps_are_those_that_were_done(training, tmp_path):
    """With a constant learning rate they may be asked otherwise afterwards."""
    stage = Path(tmp_path / "run" / "contrast")
    stage.mkdir(parents=True)
    mark_done(stage, step=1500, metrics={})
    assert training("contrast.steps=100")["contrast.steps"] == "1500"
