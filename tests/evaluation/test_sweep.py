"""A sweep with stand-ins for all models: what is loaded, scored and kept, and how often."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from glfa_jax import config
from glfa_jax.errors import InputError
from glfa_jax.evaluation import sweep
from glfa_jax.evaluation.decoding import HeldOut
from glfa_jax.metrics import nway
from glfa_jax.results import Scores
from tests.evaluation.test_scoring import CLIPS, judges, videos
from tests.test_config import MINIMAL

SUBJECTS = ("02", "03")


@dataclass
class Model:
    """In place of VideoSampler."""

    step: int | None


@dataclass
class Decoded:
    """In place of HeldOut.

    made: how many models. loaded: the step of all that they held. decoded: of whom, by which.
    """

    settings: config.Config
    shown = (2, 8, 8)
    made: int = 0
    loaded: list[int | None] = field(default_factory=list)
    decoded: list[tuple[int | None, str]] = field(default_factory=list)
    truths: int = 0

    def __post_init__(self) -> None:
        self.trained = self.store = SimpleNamespace(
            attributes=SimpleNamespace(identity="data", source="data"), video=self._video
        )

    def _video(self, split: str, clips: list[int]) -> np.ndarray:
        self.truths += 1
        return videos(0)[clips]

    def clips(self, subject: str) -> list[int]:
        return list(range(CLIPS))

    def unscanned(self, subject: str) -> list[int]:
        return []

    def batches(self, subject: str) -> Iterator[list[int]]:
        yield self.clips(subject)

    def sampler(self, *, step: int | None) -> Model:
        self.made += 1
        self.loaded.append(step)
        return Model(step)

    def load(self, sampler: Model, *, step: int | None) -> None:
        sampler.step = step
        self.loaded.append(step)

    def decode(self, sampler: Model, subject: str, clips: list[int], **_: float) -> np.ndarray:
        self.decoded.append((sampler.step, subject))
        return videos((sampler.step or 0) + 1)[clips]


@pytest.fixture
def decoded(tmp_path, monkeypatch) -> Decoded:
    """Checkpoints 1 and 2 of stage 2 are kept, which ended with 3."""
    monkeypatch.setattr(sweep, "evaluation_models", lambda settings: judges)
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
    monkeypatch.setattr(nway, "nway_monte_carlo", lambda *_, **__: drawn.append(1))
    run(decoded)
    assert not drawn


def test_a_checkpoint_that_is_not_kept_is_named_before_anything_is_sampled(decoded):
    (decoded.settings.run_dir / "cotrain" / "checkpoints" / "2").rmdir()
    with pytest.raises(InputError, match=r"sweep\.checkpoints: 2 not kept in .*, there are 1, 3;"):
        run(decoded)
    assert decoded.loaded == []


def test_a_rejected_sweep_leaves_no_settings_behind(decoded, place):
    """They would stand in the way of the next one."""
    (decoded.settings.run_dir / "cotrain" / "checkpoints" / "2").rmdir()
    with pytest.raises(InputError, match="2 not kept"):
        swept(decoded)
    assert not place.exists()
    swept(decoded, "sweep.checkpoints=[1]", "evaluation.ways=[2]")


def test_cells_that_do_not_hold_what_their_path_says_are_done_anew(decoded, place, capsys):
    swept(decoded)
    before = contents(place)
    cut, other, *_ = before
    cut.write_text(before[cut][:100])
    other.write_text(before[place / "03" / other.parent.name / "scores.json"])
    capsys.readouterr()
    again = swept(decoded)
    assert contents(place) == before
    assert again.decoded == [(1, "02"), (2, "02")]
    said = capsys.readouterr().out.splitlines()
    assert f"sweep: {cut}: not valid JSON" in said[0]
    assert said[1].startswith(f"sweep: {other}: is of subject 03; set aside as scores.json.broken")
    assert said[2] == "sweep: 4 of 6 cells are there already"
    assert cut.with_name("scores.json.broken").read_text() == before[cut][:100]
    assert not swept(decoded).decoded


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("seed", 7, "seed 7"),
        ("sampling", {"sampler": "dpm++", "steps": 9, "guidance_scale": 9.0}, "sampling_steps 9"),
        ("sampling", {"sampler": "dpm++", "steps": 25, "guidance_scale": 9.5}, "guidance_scale 9."),
        ("training", {"cotrain.checkpoint": "2"}, "checkpoint 2"),
    ],
)
def test_a_cell_of_other_settings_than_its_path_says_is_named(decoded, key, value, said):
    run(decoded)
    first = cells(decoded)[0]
    path = sweep.folder(decoded.settings) / first.name / "scores.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(InputError, match=f"scores.json: is of {said}"):
        sweep.validate_same_cell(path, first)


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


def test_what_paths_do_not_tell_is_rejected_by_key(decoded, place):
    swept(decoded)
    before = contents(place)
    with pytest.raises(InputError) as error:
        swept(decoded, "evaluation.sampler=ddim", "evaluation.clips=3", "sweep.guidance_scales=[1]")
    assert str(error.value) == (
        f"{place}: was made with other settings (now | then): evaluation.sampler: ddim | dpm++; "
        "evaluation.clips: 3 | None; remove the folder to make it anew"
    )
    assert contents(place) == before


def test_a_sweep_of_before_groups_of_metrics_were_renamed_goes_on(decoded, place):
    swept(decoded, "evaluation.metrics=[pixel]")
    file = place / "settings.json"
    written = json.loads(file.read_text())
    assert written["evaluation.metrics"] == ["pixel"]
    file.write_text(json.dumps(written | {"evaluation.metrics": ["pictures"]}))
    assert not swept(decoded, "evaluation.metrics=[pixel]").decoded


def test_every_scale_has_a_folder_of_its_own():
    def name(scale: float) -> str:
        return sweep.Cell(3, "03", 25, scale, 0).name.name

    assert name(3.0) == "checkpoint3_steps25_scale3_seed0"
    assert name(2.5) == "checkpoint3_steps25_scale2.5_seed0"
    scales = (3.0, 3.0000001, 1e-9, 0.1 + 0.2, 0.3, 1234567.0, 1234568.0)
    assert len({name(scale) for scale in scales}) == len(scales)


def test_the_table_says_who_was_trained_on_and_keeps_what_has_one_value_a_run(decoded, place):
    swept(decoded, "evaluation.metrics=[features]", "protocol.pretraining=published")
    with (place / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    rows = json.loads((place / "table.json").read_text())
    assert len(lines) == len(rows) == 6 * 5
    for row, line in zip(rows, lines, strict=True):
        scores = Scores.read(place / sweep.Cell(*list(row.values())[:5]).name)
        assert (row["method"], row["protocol"]) == (scores.method, scores.protocol.name)
        assert (row["pretraining"], row["train_subjects"]) == ("published", "01 02")
        for key in ("method", "protocol", "pretraining", "train_subjects"):
            assert line[key] == row[key]
        if row["metric"] == "Fréchet distance, VideoMAE":
            assert row["mean"] == scores.overall["Fréchet distance, VideoMAE"].value
            assert (row["better"], row["clips"]) == ("lower", CLIPS)
            assert [line[key] for key in ("std", "low", "high", "chance")] == [""] * 4
        else:
            assert row["low"] <= row["mean"] <= row["high"]
    assert sum(row["metric"] == "Fréchet distance, VideoMAE" for row in rows) == 6
