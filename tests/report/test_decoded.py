"""The page of a decoded run: what is known of each clip, and nothing that is not."""

import numpy as np
import pytest

from glfa_jax.data.video import write_mp4
from glfa_jax.report import decoded

ROWS = [
    {"clip": "<a>.mp4", "onset": "4", "duration": "2", "agreement": "0.412", "file": "0.mp4",
     "shown": "1.mp4"},
    {"clip": "event 002", "onset": "8.5", "duration": "2", "agreement": "-0.031",
     "file": "1.mp4", "shown": "n/a"},
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    for name in ("0.mp4", "1.mp4"):
        write_mp4(tmp_path / name, np.zeros((2, 16, 16, 3), np.uint8), frame_rate=2)
    return tmp_path


def page(folder, **changes) -> str:
    given = {"name": "run.gii", "facts": [("Cleaning", "none")], "samples": 2, "notes": []}
    given |= {"warning": "", "limits": "It may be wrong."} | changes
    return decoded.write(folder, ROWS, **given).read_text()


def test_every_clip_stands_beside_what_was_shown_where_that_is_known(folder):
    text = page(folder)
    assert text.count("data:video/mp4") == 3
    assert "&lt;a&gt;.mp4" in text
    assert "<a>.mp4" not in text
    assert "agreement <b>0.412</b>" in text
    assert "It does not say whether what is seen is right" in " ".join(text.split())
    assert "2 clips decoded from the fMRI of one run. It may be wrong." in text
    assert "Notes" not in text


def test_notes_and_warnings_are_shown_and_one_sample_has_no_agreement(folder):
    text = page(folder, samples=1, notes=["Look here."], warning="Of another kind.")
    assert "agreement" not in text.casefold()
    assert "<li>Look here.</li>" in text
    assert '<p class="absent">Of another kind.</p>' in text


def test_what_is_too_much_for_a_page_is_named_by_its_file(folder):
    size = sum((folder / name).stat().st_size for name in ("0.mp4", "1.mp4"))
    text = page(folder, budget=4 * size // 3)
    assert text.count("data:video/mp4") == 2
    assert "see 1.mp4" in text
    assert "1 of the clips are named by their file" in text
