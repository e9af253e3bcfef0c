"""Samples as they lie on the disk: only what is whole and of the right clips is scored."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from glfa_jax import config
from glfa_jax.errors import InputError
from glfa_jax.evaluation import sample
from glfa_jax.evaluation.decoding import HeldOut
from tests.test_config import MINIMAL

BATCHES = [[0, 1], [3]]


@pytest.fixture
def sampled(tmp_path) -> HeldOut:
    given = tmp_path / "given.yaml"
    given.write_text(MINIMAL, encoding="utf-8")
    changes = (f"run_dir={tmp_path / 'run'}", "data.frames=2", "data.resolution=[8, 16]")
    settings = config.load(given, changes)
    test = cast(HeldOut, SimpleNamespace(settings=settings, batches=lambda _: iter(BATCHES)))
    for path, clips in sample.batches(test, "03"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, clips)
    return test


def write(path: Path, clips: list[int], shape: tuple = (2, 8, 16, 3), dtype: type = np.uint8):
    np.savez(path, video=np.full((len(clips), *shape), clips[0], dtype), clip=clips)


def test_batches_are_read_in_their_order(sampled):
    videos, clips = sample.read_samples(sampled, "03")
    assert clips == [0, 1, 3]
    assert videos.shape == (3, 2, 8, 16, 3)
    assert videos[:, 0, 0, 0, 0].tolist() == [0, 0, 3]


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:300]), "truncated or no batch"),
        (lambda path: path.write_bytes(b""), "truncated or no batch"),
        (lambda path: np.savez(path, clip=[3]), "lacks video"),
        (lambda path: write(path, [4]), r"holds clips \[4\] as uint8 .*, not \[3\] as uint8"),
        (
            lambda path: write(path, [3], (3, 8, 16, 3)),
            r"\(1, 3, 8, 16, 3\), not .*\(2, 8, 16, 3\)",
        ),
        (lambda path: write(path, [3], dtype=float), "as float64"),
    ],
)
def test_what_is_damaged_or_of_something_else_is_rejected(sampled, spoil, fault):
    path = [path for path, _ in sample.batches(sampled, "03")][1]
    spoil(path)
    with pytest.raises(InputError, match=fault) as rejected:
        sample.read_samples(sampled, "03")
    assert str(rejected.value).startswith(f"{path}: ")
    assert "remove it and run python -m eval.sample again" in str(rejected.value)
    path.unlink()
    with pytest.raises(InputError, match=f"not sampled yet: {path}"):
        sample.read_samples(sampled, "03")
