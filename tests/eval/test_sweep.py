"""A sweep with stand-ins for models and judges: what is loaded, judged and kept, and how often."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from eval import scoring, sweep
from eval.decoding import HeldOut
from glfa_jax import config
from glfa_jax.errors import InputError
from glfa_jax.results import Scores
from tests.eval.test_scoring import CLIPS, judges, videos
from tests.test_config import MINIMAL

SUBJECTS = ("02", "03")


@dataclass
class Model:
    """In place of Generator."""

    step: int | None


@dataclass
class Decoded:
    """In place of HeldOut.

    made: how many models. loaded: the step of all that they held. decoded: of whom, by which.
    """

    settings: config.Config
    made: int = 0
    loaded: list[int | None] = field(default_factory=list)
    decoded: list[tuple[int | None, str]] = field(default_factory=list)
    truths: int = 0

    def __post_init__(self) -> None:
        self.trained = self.store = SimpleNamespace(
            attributes=SimpleNamespace(identity="data"), video=self._video
        )

    def _video(self, split: str, clips: list[int]) -> np.ndarray:
        self.truths += 1
        return videos(0)[clips]

    def clips(self, subject: str) -> list[int]:
        return list(range(CLIPS))

    def batches(self, subject: str) -> Iterator[list[int]]:
        yield self.clips(subject)

    def generator(self, *, step: int | None) -> Model:
        self.made += 1
        self.loaded.append(step)
        return Model(step)

    def load(self, generator: Model, *, step: int | None) -> None:
        generator.step = step
        self.loaded.append(step)

    def decode(self, generator: Model, subject: str, clips: list[int], **_: float) -> np.ndarray:
        self.decoded.append((generator.step, subject))
        return videos((generator.step or 0) + 1)[clips]


@pytest.fixture
def decoded(tmp_path, monkeypatch) -> Decoded:
    """Checkpoints 1 and 2 of stage 2 are kept, which ended with 3."""
    monkeypatch.setattr(sweep, "Judges", lambda settings: judges)
    path = tmp_path / "given.yaml"
    path.write_text(MINIMAL, encoding="utf-8")
    for step in (1, 2):
        (tmp_path / "run" / "cotrain" / "checkpoints" / str(step)).mkdir(parents=True)
    overrides = (
        *(f"run_dir={tmp_path / 'run'}", "cotrain.steps=3", "sweep.checkpoints=[1, 2, 3]"),
        *(f"protocol.test_subjects={list(SUBJECTS)}", "evaluation.metrics=[]"),
    )
    return Decoded(config.load(path, overrides))


def cells(decoded: Decoded) -> list[sweep.Cell]:
    return sweep.cells(decoded.settings)


def run(decoded: Decoded) -> None:
    sweep.run_all(cast(HeldOut, decoded), cells(decoded))


def swept(decoded: Decoded, *overrides: str) -> Decoded:
    """A sweep by its command, with other options."""
    ours = Decoded(config.overridden(decoded.settings, overrides))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "open_test", lambda settings: ours)
        sweep.main(ours.settings)
    return ours


def contents(folder: Path) -> dict[Path, str]:
    """All scores of cells."""
    return {path: path.read_text() for path in sorted(folder.rglob("scores.json"))}


@pytest.fixture
def place(decoded) -> Path:
    return decoded.settings.run_dir / "sweep"


def test_one_model_holds_every_checkpoint_and_one_truth_serves_all(decoded):
    run(decoded)
    assert (decoded.made, decoded.loaded) == (1, [1, 2, None])
    assert decoded.decoded == [(step, name) for step in (1, 2, None) for name in SUBJECTS]
    assert decoded.truths == 1
    found = {cell: decoded.settings.run_dir / "sweep" / cell.name for cell in cells(decoded)}
    assert len(found) == 6
    for cell, place in found.items():
        scores = Scores.read(place)
        assert scores.protocol.test_subjects == (cell.subject,)
        assert scores.training["cotrain.checkpoint"] == str(cell.checkpoint)


def test_nothing_is_drawn_that_no_cell_keeps(decoded, monkeypatch):
    drawn = []
    monkeypatch.setattr(scoring.nway, "nway_monte_carlo", lambda *_, **__: drawn.append(1))
    run(decoded)
    assert not drawn


def test_a_checkpoint_that_is_not_kept_is_named_before_anything_is_sampled(decoded):
    (decoded.settings.run_dir / "cotrain" / "checkpoints" / "2").rmdir()
    with pytest.raises(InputError, match=r"sweep\.checkpoints: 2 not kept in .*, there are 1, 3;"):
        run(decoded)
    assert decoded.loaded == []


def test_a_refused_sweep_leaves_no_settings_behind(decoded, place):
    """They would stand in the way of the next one."""
    (decoded.settings.run_dir / "cotrain" / "checkpoints" / "2").rmdir()
    with pytest.raises(InputError, match="2 not kept"):
        swept(decoded)
    assert not place.exists()
    swept(decoded, "sweep.checkpoints=[1]", "evaluation.ways=[2]")


def test_a_sweep_grows_by_subjects_and_by_further_training(decoded, place):
    finished = "sweep.checkpoints="
    swept(decoded, finished, "protocol.test_subjects=['03']")
    first = contents(place)
    assert swept(decoded, finished).decoded == [(None, "02")]
    (decoded.settings.run_dir / "cotrain" / "checkpoints" / "3").mkdir()
    further = swept(decoded, "cotrain.steps=5", finished)
    assert further.decoded == [(None, "02"), (None, "03")]  # not those of the earlier end
    assert not swept(decoded, "cotrain.steps=5", "sweep.checkpoints=[3, 5]").decoded
    found = contents(place)
    assert found.items() > first.items()
    assert {path.parent.name for path in found} == {
        f"checkpoint{step}_steps25_scale9_seed0" for step in (3, 5)
    }


def test_what_paths_do_not_tell_is_refused_by_key(decoded, place):
    swept(decoded)
    before = contents(place)
    with pytest.raises(InputError) as error:
        swept(decoded, "evaluation.sampler=ddim", "evaluation.clips=3", "sweep.guidance_scales=[1]")
    assert str(error.value) == (
        f"{place}: was made with other settings (now | then): evaluation.sampler: ddim | dpm++; "
        "evaluation.clips: 3 | None; remove the folder to make it anew"
    )
    assert contents(place) == before
