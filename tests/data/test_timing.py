import math
from pathlib import Path

import pytest

from glfa_jax.data import DataError
from glfa_jax.data.timing import repetition_time

SCAN = Path("sub-01_bold.nii.gz")


def decided(header, sidecar, trust="agreeing"):
    notes = []
    return repetition_time(SCAN, header=header, sidecar=sidecar, trust=trust, notes=notes), notes


@pytest.mark.parametrize("header", [0, 2.0, 1.9996])
@pytest.mark.parametrize("trust", ["agreeing", "sidecar", "header"])
def test_a_header_that_agrees_or_says_nothing_leaves_the_sidecar(header, trust):
    assert decided(header, 2.0, trust) == (2.0, [])


@pytest.mark.parametrize("header", [1.0, 0.001, 2000.0, 0.002, 2e6, 2e-6, -2, math.nan, math.inf])
def test_a_default_or_another_unit_in_the_header_is_noted(header):
    seconds, (note,) = decided(header, 2.0)
    assert seconds == 2.0
    assert note == (
        f"sub-01_bold.nii.gz: its header says TR {header:g} s and its sidecar 2 s; taken to be 2 s"
    )


@pytest.mark.parametrize("header", [1.5, 1.002, 0.998, 4.0])
def test_a_contradiction_is_rejected(header):
    with pytest.raises(DataError, match=r"its header says TR .* its sidecar 2 s; correct"):
        decided(header, 2.0)


def test_the_option_says_which_holds():
    for header, sidecar, trust, right in (
        (1.5, 2.0, "sidecar", 2.0),
        (1.5, 2.0, "header", 1.5),
        (2.0, 2000.0, "header", 2.0),
    ):
        seconds, (note,) = decided(header, sidecar, trust)
        assert seconds == right
        assert note.endswith(f"taken to be {right:g} s")


@pytest.mark.parametrize(
    ("header", "sidecar", "trust"),
    [
        (0, 2000.0, "agreeing"),
        (2000.0, 2000.0, "agreeing"),
        (2.0, 2000.0, "agreeing"),
        (2.0, 0.002, "sidecar"),
        (math.nan, 2.0, "header"),
        (0, 0.04, "agreeing"),
        (0, 21.0, "agreeing"),
    ],
)
def test_a_time_that_no_scanner_keeps_is_rejected(header, sidecar, trust):
    with pytest.raises(DataError, match=r"RepetitionTime .* is implausible, must be from 0\.05"):
        decided(header, sidecar, trust)
