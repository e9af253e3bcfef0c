"""What evaluation refuses before anything is loaded or computed."""

import jax
import pytest

from eval import decoding, score
from eval.decoding import open_test
from glfa_jax import config
from glfa_jax.errors import InputError
from glfa_jax.training.sharding import make_mesh
from glfa_jax.training.state import TrainingError
from tests.eval.tiny_run import finished


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> config.Config:
    return finished(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("evaluation.sampling_steps=1000", "evaluation.sampling_steps: 1000, must be below the "),
        ("sweep.sampling_steps=[10, 1000]", "sweep.sampling_steps: 1000, must be below the 1000 "),
        ("evaluation.ways=[2, 63]", "evaluation.ways: 63, but video-classifier knows 64 classes"),
    ],
)
def test_more_than_generator_and_judges_can_do(settings, override, said):
    assert open_test(settings).clips("03") == [0, 1, 2, 3]
    with pytest.raises(InputError, match=said):
        open_test(config.overridden(settings, [override]))


def test_what_is_asked_of_the_judges_is_checked_when_scoring(settings):
    """It may be new since sampling."""
    samples = settings.run_dir / "samples"
    samples.mkdir()
    (samples / "index.json").write_text("[]")
    with pytest.raises(InputError, match=r"evaluation\.ways: 63"):
        score.main(config.overridden(settings, ["evaluation.ways=[63]"]))
    open_test(config.overridden(settings, ["evaluation.ways=[62]"]))


def test_a_mesh_of_other_devices_is_refused_with_what_helps(settings, monkeypatch):
    """A run trained on several devices is decoded on those at hand."""
    monkeypatch.setattr(decoding, "load_decoder", lambda *_, **__: pytest.fail("loaded"))
    elsewhere = config.overridden(settings, ["hardware.mesh={data: 3, fsdp: 5}"])
    with pytest.raises(
        TrainingError, match=r"devices, \d+; --set 'hardware\.mesh=\{\}' fits"
    ) as error:
        open_test(elsewhere).generator()
    assert "data 3 x fsdp 5" in str(error.value)
    here = config.overridden(elsewhere, ["hardware.mesh={}"])
    assert make_mesh(here.hardware.mesh).shape == {
        "data": len(jax.devices()),
        "fsdp": 1,
        "frame": 1,
    }
