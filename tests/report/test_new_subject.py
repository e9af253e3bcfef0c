"""The page of a layer that was fitted to a new subject."""

import json
from pathlib import Path

import numpy as np
import pytest

from glfa_jax.report import new_subject
from glfa_jax.report.inputs import ReportError
from tests.report import fake
from tests.report.test_page import parse, words

SIDE = 32
MASK = np.zeros((SIDE, SIDE), bool)
MASK[2:30, 2:15] = MASK[2:30, 17:30] = True
ABOUT = {
    "method": "warp",
    "options": {"grid": 8},
    "subject": "03",
    "others": ["01", "02"],
    "minutes": 4.0,
    "clips": 120,
    "fitted_to": "paired",
}
MOVED = {"change": 0.25, "distance_before": 1.44, "distance_after": 0.81}
HELD_OUT = {"held_out_before": 0.31, "held_out_after": 0.45}
HALVES = {"halves_correlation": 0.83, "halves_difference_pixels": 0.5}


def fitted(folder: Path, *, arrays: dict | None = None, **about) -> Path:
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text(json.dumps(ABOUT | about))
    if arrays is not None:
        np.savez(folder / new_subject.ARRAYS, mask=MASK, **arrays)
    return folder


def page(folder: Path) -> str:
    text = new_subject.write(folder).read_text(encoding="utf-8")
    parse(text)
    return text


def test_it_says_how_well_with_what_and_how_sure(tmp_path):
    _, shifts = fake.displacements(np.random.default_rng(0), MASK)
    shift = 2 * shifts[0] / np.sqrt(np.square(shifts[0][MASK]).sum(-1).mean())
    alike = np.where(MASK, 0.4, np.nan)
    arrays = {"shift": shift, "pixel_mm": 3.0, "held_out_before": alike, "held_out_after": alike}
    folder = fitted(tmp_path / "fit", arrays=arrays, report=MOVED | HELD_OUT | HALVES)
    text = page(folder)
    plain = words(text)
    for said in (
        "A layer (warp) was fitted to 4 minutes of subject 03",
        "the correlation with theirs rises from 0.310 to 0.450.",
        "Methodwarp with grid 8 Dataclips that training subjects saw as well Amount4 minutes, 120",
        "correlate with 0.83 and differ by 1.5 mm (root mean square)",
        "It is 6.0 mm (root mean square over cortex)",
        "changes his maps by 0.50 z",
        "they are 1.20 z away before alignment, 0.90 z after",
    ):
        assert said in plain
    assert "with arrows: displacement of subject 03" in text
    assert text.count("Flat map of visual cortex, correlation") == 2


def test_alignment_that_does_not_help_is_not_praised(tmp_path):
    report = {"held_out_before": 0.4, "held_out_after": 0.35}
    plain = words(page(fitted(tmp_path / "fit", arrays={}, report=report)))
    assert "the correlation with theirs does not rise: it is 0.400 before, 0.350 after." in plain


@pytest.mark.parametrize(
    ("about", "arrays", "said"),
    [
        (
            {"fitted_to": "unlabelled", "report": {"change": 0.25} | HALVES},
            {"shift": np.ones((SIDE, SIDE, 2))},
            ["Layers of two halves of the clips displace alike: r = 0.830", "differ by 0.5 px",
             "compared with the same maps of the training subjects", "fMRI alone"],
        ),
        (
            {"method": "glfa", "report": MOVED, "not_measured": "the layer is trained in steps"},
            {},
            ["How sure it is was not measured.", "This was not measured: the layer is trained in",
             "A layer (GLFA) was", "from one place, so there is none to show"],
        ),
        (
            {"method": "anatomy", "fitted_to": "anatomy", "minutes": 0, "clips": 0,
             "anatomy": ["curv", "myelinw"], "report": {"left_out": 0.42}, "warning": "Few."},
            {"shift": np.ones((SIDE, SIDE, 2))},
            ["A layer (anatomy) was fitted to the anatomy of subject 03",
             "displacement, anatomy told 0.42 for those who were left out", "no fMRI Amount2 maps:",
             "0.42 of the variance of their displacement from the mean was told",
             "regularised. Few.",
             "No fMRI of the subject was read", "It is 1.4 px"],
        ),
        ({}, None, ["This was not measured: the layer was fitted by an earlier version."]),
    ],
)  # fmt: skip
def test_what_is_not_known_is_not_shown(tmp_path, about, arrays, said):
    plain = words(page(fitted(tmp_path / "fit", arrays=arrays, **about)))
    for one in said:
        assert one in plain
    assert "judged by the last" not in plain


ENCODER = {"curve": [[0, 0.5], [10, 0.32], [20, 0.4]], "held_out_clips": 24, "layer_trained": False}


@pytest.mark.parametrize(
    ("kept", "trained", "said"),
    [
        (
            10,
            False,
            ["in the clips that were held out, its loss fell by 36%.", "warp, with encoder",
             "In the last 24 clips", "they differ by 0.50 before and by 0.40 at step 10, which is",
             "those that were held out among them, and stays."],
        ),
        (
            0,
            True,
            ["Training the encoder as well brought nothing: it stays as stage 2 left it.",
             "they differ by 0.50 as stage 2 left it, and after no step by less",
             "among them, and then trained with the encoder."],
        ),
    ],
)  # fmt: skip
def test_what_training_the_encoder_brought_is_said(tmp_path, kept, trained, said):
    about = {"options": {}, "encoder_fit": ENCODER | {"layer_trained": trained}}
    report = MOVED | {"encoder_step": kept, "tokens_spread": 2.0}
    text = page(fitted(tmp_path / "fit", arrays={}, report=report, **about))
    for one in said:
        assert one in words(text)
    assert 'href="#encoder"' in text
    assert "Loss in clips that were held out, over steps" in text


def test_without_training_the_encoder_nothing_is_said_of_it(tmp_path):
    assert "encoder" not in words(page(fitted(tmp_path / "fit", arrays={}, report=MOVED)))


@pytest.mark.parametrize(
    ("about", "arrays", "said"),
    [
        (
            {"encoder_fit": ENCODER, "report": {"encoder_step": 7, "tokens_spread": 1.0}},
            {},
            r"config\.json: truncated or no description of a fitted layer",
        ),
        ({"minutes": "many"}, {}, r"config\.json: truncated or no description of a fitted layer"),
        ({}, {"shift": np.ones((4, 4, 2))}, r"fit\.npz: shift \(4, 4, 2\) must be \(32, 32, 2\)"),
    ],
)
def test_damage_is_one_sentence_and_no_page(tmp_path, about, arrays, said):
    folder = fitted(tmp_path / "fit", arrays=arrays, **about)
    with pytest.raises(ReportError, match=said):
        new_subject.write(folder)
    assert not (folder / new_subject.PAGE).exists()
