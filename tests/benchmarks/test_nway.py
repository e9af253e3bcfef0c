"""Exact n-way against plain loops of trials: the comparison runs and agrees."""

import json
from pathlib import Path

import pytest

from benchmarks import nway


def test_both_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "result.json"
    small = ["--clips", "6", "--classes", "30", "--ways", "2", "20", "--rounds", "1"]
    assert nway.main([*small, "--json", str(target)]) == 0
    rows = json.loads(target.read_text())["rows"]
    assert [row["n"] for row in rows] == [2, 20]
    for row in rows:
        ms = row["milliseconds"]
        assert row["trials_over_exact"] == pytest.approx(ms["trials"] / ms["exact"])
    assert capsys.readouterr().out.count("standard errors") == 2


def test_trials_that_judge_something_else_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = nway.nway_exact
    monkeypatch.setattr(nway, "nway_exact", lambda *a, n, **o: judged(*a, n=n + 5, **o))
    assert nway.main(["--clips", "30", "--classes", "30", "--ways", "2", "--rounds", "1"]) == 1
