"""The command that scores, with stand-ins for what was decoded and measured."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from glfa_jax import config
from glfa_jax.errors import InputError
from glfa_jax.evaluation import score
from glfa_jax.evaluation.scoring import Measured, Scored
from glfa_jax.results import Better, Metric, Scores
from tests.evaluation import made
from tests.evaluation.made import SSIM
from tests.test_config import MINIMAL

CLIPS = 12


class Stopped(Exception):
    """As by a kill."""


@pytest.fixture
def settings(tmp_path) -> config.Config:
    path = tmp_path / "given.yaml"
    path.write_text(MINIMAL, encoding="utf-8")
    overrides = (f"run_dir={tmp_path / 'run'}", "evaluation.metrics=[pixel]")
    return config.load(path, overrides)


@pytest.fixture
def decoded(settings, monkeypatch) -> Path:
    """A run folder with samples, and commands that find everything else in place."""
    samples = settings.run_dir / "samples"
    samples.mkdir(parents=True)
    files = {"generated": "clip.mp4", "truth": "clip.mp4"}
    index = [{"subject": "03", "clip": clip, **files} for clip in range(CLIPS)]
    (samples / "clip.mp4").touch()
    (samples / "index.json").write_text(json.dumps(index))
    store = SimpleNamespace(attributes=SimpleNamespace(identity="data", source="data"))
    test = SimpleNamespace(
        settings=settings,
        store=store,
        trained=store,
        clips=lambda _: list(range(CLIPS)),
        unscanned=lambda _: [CLIPS, CLIPS + 3],
    )
    scored = Scored(
        [Measured("SSIM", SSIM, np.linspace(0, 1, CLIPS), None)],
        [],
        {},
        made.JUDGES,
    )
    for name, value in {
        "open_test": test,
        "validate_same_settings": None,
        "evaluation_models": None,
        "scorers": lambda subject: None,
        "score_subject": (scored, []),
        "align_maps": None,
    }.items():
        monkeypatch.setattr(score, name, lambda *_, value=value, **__: value)
    return settings.run_dir


def page_that(write: Callable) -> SimpleNamespace:
    """The report, of a run that was not explained."""
    return SimpleNamespace(write=write, read_explained=lambda *_: None)


def test_clips_without_fmri_are_listed(settings, decoded, monkeypatch, capsys):
    monkeypatch.setattr(score, "page", page_that(lambda folder: folder / "report"))
    score.main(settings)
    assert Scores.read(decoded).unscanned == (made.clip(CLIPS), made.clip(CLIPS + 3))
    assert "subject 03: 2 test clips not decoded for want of fMRI" in capsys.readouterr().out


@pytest.mark.parametrize("last", ["align_maps", "page"])
def test_a_scoring_that_was_stopped_is_none(settings, decoded, monkeypatch, last):
    """Not the one before either, which was of other numbers."""

    def stop(*_: object) -> None:
        raise Stopped

    monkeypatch.setattr(score, "page", page_that(lambda folder: folder / "report"))
    score.main(settings)
    assert len(Scores.read(decoded).clips) == CLIPS
    with monkeypatch.context() as during:
        during.setattr(score, last, stop if last == "align_maps" else page_that(stop))
        with pytest.raises(Stopped):
            score.main(settings)
    assert not (decoded / "scores.json").exists()
    score.main(settings)
    assert len(Scores.read(decoded).clips) == CLIPS


NOISE, OTHERS = np.random.default_rng(0).normal(size=(2, 40))


def line_of(difference: float, *, better: Better, chance: float | None) -> dict:
    """Of a metric that differs so much from its mismatch, with noise of 1 on either."""
    about = Metric("made", better, chance, "px")
    measured = Measured("EPE", about, NOISE + difference, lambda: OTHERS)
    return score.row(measured, seed=0, subject="03")


@pytest.mark.parametrize(
    ("better", "difference"), [("higher", 2.0), ("lower", -2.0), ("higher", -2.0), ("lower", 2.0)]
)
def test_the_p_value_is_of_being_better_than_the_mismatch(better, difference):
    line = line_of(difference, better=better, chance=None)
    wins = (difference > 0) == (better == "higher")
    assert line["p_value"] < 1e-6 if wins else line["p_value"] > 1 - 1e-6
    assert line["mean"] - line["mismatched"] == pytest.approx(difference, abs=0.5)
    assert line["chance"] == line["mismatched"]
    assert (line["variant"], line["n"], line["subject"]) == ("made, px", 40, "03")


def test_the_p_value_is_the_larger_of_both_tests():
    paired = stats.ttest_rel(NOISE + 2, OTHERS, alternative="greater").pvalue
    alone = stats.ttest_1samp(NOISE + 2, 1.7, alternative="greater").pvalue
    assert alone > paired
    line = line_of(2.0, better="higher", chance=1.7)
    assert line["p_value"] == pytest.approx(alone, rel=1e-8)
    assert line["chance"] == 1.7
    line = line_of(2.0, better="lower", chance=9.0)  # better than chance, not than the mismatch
    assert line["p_value"] == pytest.approx(1 - paired, rel=1e-8)


def test_what_nothing_is_known_to_compare_with_has_no_p_value():
    line = score.row(Measured("CLIP-pcc", SSIM, np.linspace(0, 1, 9), None), seed=0)
    assert line["p_value"] is line["chance"] is line["mismatched"] is None


def test_an_index_that_the_report_could_not_use_is_rejected_before_anything_is_scored(
    settings, decoded, monkeypatch
):
    monkeypatch.setattr(score, "score_subject", lambda *_: 1 / 0)
    (decoded / "samples" / "clip.mp4").unlink()
    with pytest.raises(InputError, match=r"index\.json: entry 0 names 'clip\.mp4', which is not"):
        score.main(settings)


def test_a_folder_that_must_not_be_written_to_is_rejected_before_anything_is_scored(
    settings, decoded, monkeypatch
):
    monkeypatch.setattr(score, "score_subject", lambda *_: 1 / 0)
    monkeypatch.setattr(score.os, "access", lambda *_: False)
    with pytest.raises(
        InputError, match=r"run: must not be written to; choose another results_dir"
    ):
        score.main(settings)
