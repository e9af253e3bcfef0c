"""The command that scores, with stand-ins for what was decoded and measured."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from eval import score
from eval.scoring import Measured, Scored
from glfa_jax import config
from glfa_jax.results import Scores
from tests.eval.made import SSIM
from tests.test_config import MINIMAL

CLIPS = 12


class Stopped(Exception):
    """As by a kill."""


@pytest.fixture
def settings(tmp_path) -> config.Config:
    path = tmp_path / "given.yaml"
    path.write_text(MINIMAL, encoding="utf-8")
    overrides = (f"run_dir={tmp_path / 'run'}", "evaluation.metrics=[pictures]")
    return config.load(path, overrides)


@pytest.fixture
def decoded(settings, monkeypatch) -> Path:
    """A run folder with samples, and commands that find everything else in place."""
    samples = settings.run_dir / "samples"
    samples.mkdir(parents=True)
    index = [{"subject": "03", "clip": clip} for clip in range(CLIPS)]
    (samples / "index.json").write_text(json.dumps(index))
    store = SimpleNamespace(attributes=SimpleNamespace(identity="data"))
    test = SimpleNamespace(
        settings=settings, store=store, trained=store, clips=lambda _: list(range(CLIPS))
    )
    scored = Scored(
        [Measured("SSIM", SSIM, np.linspace(0, 1, CLIPS), None)],
        [],
        (np.ones((2, 2)), np.ones((2, 2))),
    )
    for name, value in {
        "open_test": test,
        "refuse_other_settings": None,
        "Judges": None,
        "score_subject": (scored, []),
        "align_maps": None,
    }.items():
        monkeypatch.setattr(score, name, lambda *_, value=value, **__: value)
    return settings.run_dir


@pytest.mark.parametrize("last", ["align_maps", "page"])
def test_a_scoring_that_was_stopped_is_none(settings, decoded, monkeypatch, last):
    """Not the one before either, which was of other numbers."""

    def stop(*_: object) -> None:
        raise Stopped

    monkeypatch.setattr(score, "page", SimpleNamespace(write=lambda folder: folder / "report"))
    score.main(settings)
    assert len(Scores.read(decoded).clips) == CLIPS
    with monkeypatch.context() as during:
        during.setattr(score, last, stop if last == "align_maps" else SimpleNamespace(write=stop))
        with pytest.raises(Stopped):
            score.main(settings)
    assert not (decoded / "scores.json").exists()
    score.main(settings)
    assert len(Scores.read(decoded).clips) == CLIPS
