"""Options of data.clean: what makes no sense is said, and all of them are documented."""

from pathlib import Path

import pytest

from glfa_jax import config
from tests.test_config import MINIMAL, load, rejection

__all__ = ["load"]  # a fixture


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("{high_pass_hz: 0.2, low_pass_hz: 0.1}", "clean.high_pass_hz: 0.2 must be below low_pass"),
        ("{high_pass_hz: 0.1, cosine_seconds: 128}", "clean.cosine_seconds: must be left out with"),
        ("{polynomial: 0}", "clean.polynomial: Input should be greater than 0"),
        ("{confounds: {}}", "clean.confounds.strategy: must be given, or else parts or columns"),
        ("{confounds: {strategy: complete}}", "clean.confounds.strategy: Input should be 'simple'"),
        ("{confounds: {strategy: simple, parts: [motion]}}", "confounds.parts: must be left out"),
        ("{confounds: {parts: [compcor]}}", "confounds.parts: compcor needs high_pass beside it"),
        ("{censor: {shortest: 5}}", "clean.censor.framewise_displacement: must be given, or else"),
        ("{detrend: 4}", "clean.detrend: unknown key, known here are smooth_mm, despike"),
    ],
)
def test_what_makes_no_sense_is_said(load, given, says):
    assert says in rejection(load, MINIMAL, f"data.clean={given}")


def test_nothing_is_not_the_same_as_left_out(load):
    assert load(MINIMAL).data.clean is None
    nothing = load(MINIMAL, "data.clean={}").data.clean
    assert nothing == config.Cleaning()
    assert not nothing.on
    assert nothing.words == "none"
    assert load(MINIMAL, "data.clean.polynomial=3").data.clean.words == "polynomial of order 3"


def test_every_option_is_documented():
    page = (Path(__file__).parents[1] / "docs" / "cleaning.md").read_text(encoding="utf-8")
    for section in (config.Cleaning, config.Confounds, config.Censor):
        for name in section.model_fields:
            assert f"`{name}`" in page or f"`{name}: " in page, name
