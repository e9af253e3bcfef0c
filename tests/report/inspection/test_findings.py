"""Each thing out of the ordinary is told, and nothing is told of a healthy store."""

import re

import numpy as np
import pytest

from glfa_jax.report.inspection.courses import courses
from glfa_jax.report.inspection.findings import findings
from glfa_jax.report.inspection.inspection import inspect
from tests.report.inspection.conftest import CLIPS, MASK, VOLUMES, with_kinds


def told(store) -> list[str]:
    return findings(store, inspect(store, progress=False))


def test_a_healthy_store_gives_no_alarm(healthy):
    assert told(healthy) == []


def few_samples(made):
    made.arrays["train/present/sub-02"][:3] = False


def silent_pixels(made):
    for split in CLIPS:
        made.arrays[f"{split}/fmri/sub-02"][..., 3:6, :] = 0


def spike(made):
    made.arrays["train/fmri/sub-02"][3, 1, 8, 8] = 14


def centred(made):
    made.arrays["quality/tsnr/sub-02"] = 0.01 * np.random.default_rng(0).normal(size=MASK.shape)
    made.arrays["quality/course/sub-02"][:] = 0


def noisy(made):
    made.arrays["quality/tsnr/sub-02"] /= 10


def wrong_hemisphere(made):
    made.arrays["quality/tsnr/sub-02"][:, 12:] /= 4


def first_volumes(made):
    made.arrays["quality/course/sub-02"][[0, VOLUMES]] = 8


def jump(made):
    made.arrays["quality/course/sub-02"][VOLUMES + 20] = -17


def wrong_times(made):
    made.arrays["quality/reliability/sub-02"][:] = 0.003


def stranger(made):
    rng = np.random.default_rng(5)
    maps = made.arrays["test/fmri/sub-02"]
    maps[:] = rng.permutation(maps)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (few_samples, "lacks 3 of 7 train samples"),
        (silent_pixels, "53 of 305 cortex pixels never vary"),
        (spike, r"largest \|z\| is 14.0"),
        (centred, "z-scored or detrended before"),
        (noisy, "median temporal SNR is 6.0"),
        (wrong_hemisphere, "differs between the hemispheres, 60 left and 15 right"),
        (first_volumes, "first volume of most runs"),
        (jump, "by up to 17 % within run 2"),
        (wrong_times, r"repeats of the same clip hardly agree \(mean correlation 0.003\)"),
        (stranger, "responds like nobody else"),
    ],
)
def test_what_is_wrong_is_reported_of_the_subject_and_nothing_else(make, spoil, words):
    sentences = told(make(spoil))
    assert len(sentences) == 1
    assert sentences[0].startswith("Subject 02")
    assert re.search(words, sentences[0])


@pytest.mark.parametrize(
    ("measures", "kinds", "says"),
    [
        ({"drift": 0.23}, ("carpet",), "the maps drift: slow waves are 23% of the variance"),
        ({"drift": 0.23, "drift_cleaned": 0.01}, ("carpet", "course_cleaned"), None),
        (
            {"drift": 0.23, "drift_cleaned": 0.15},
            ("carpet", "course_cleaned"),
            "slow waves are 15%",
        ),
        ({"motion": 0.52}, ("carpet",), r"change when the head moves \(correlation 0\.52"),
        ({"motion": 0.45}, ("carpet",), None),  # in 40 volumes that may be chance
        ({"motion": 0.6, "motion_cleaned": 0.2}, ("carpet", "course_cleaned"), None),
    ],
)
def test_drift_and_motion_are_told_as_they_are_left_in_the_maps(make, measures, kinds, says):
    def change(made):
        for run in made.attributes["runs"][2:4]:
            run |= measures
        with_kinds(made, kinds)

    sentences = told(make(change))
    assert len(sentences) == (says is not None)
    if says is not None:
        assert sentences[0].startswith("Subject 02: ")
        assert re.search(says, sentences[0])


def test_nobody_alike_is_reported_once(make):
    def change(made):
        rng = np.random.default_rng(6)
        for subject in ("01", "02", "03"):
            maps = made.arrays[f"test/fmri/sub-{subject}"]
            maps[:] = rng.permutation(maps)

    assert [s.split(":")[0] for s in told(make(change))] == [
        "No two subjects respond alike to the same clips"
    ]


def test_a_subject_without_test_samples_is_no_stranger(make):
    def change(made):
        made.arrays["test/present/sub-03"][:] = False
        made.arrays["test/fmri/sub-03"][:] = 0

    sentences = told(make(change))
    assert len(sentences) == 1
    assert "Subject 03 lacks 73 of 73 test samples" in sentences[0]


def test_without_repeats_nothing_is_said_of_reliability(make):
    def change(made):
        made.attributes["repeats"]["02"] = 1
        made.arrays["quality/reliability/sub-02"][:] = 0

    assert told(make(change)) == []


def test_courses_are_cut_at_the_runs(make):
    def change(made):
        made.attributes["runs"][2]["volumes"] = 10
        made.attributes["runs"][3]["volumes"] = 25
        made.arrays["quality/course/sub-02"] = np.arange(35.0)

    store = make(change)
    assert [(run["name"], list(course[[0, -1]])) for run, course in courses(store, "02")] == [
        ("1", [0, 9]),
        ("2", [10, 34]),
    ]
