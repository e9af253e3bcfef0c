"""A trace of the steps that were asked for, in the stage's folder."""

import pytest

from glfa_jax.config import Hardware
from tests.training import toy


def test_steps_are_recorded(tmp_path, capfd):
    toy.run(tmp_path, steps=4, hardware=Hardware(profile=(2, 3)))
    (trace,) = tmp_path.glob("profile/**/*.xplane.pb")
    assert trace.stat().st_size > 1000
    assert f"{tmp_path / 'profile'}: a trace of steps up to 3" in capfd.readouterr().out


def test_a_run_that_ends_within_the_range_keeps_what_it_has(tmp_path):
    toy.run(tmp_path, steps=2, hardware=Hardware(profile=(2, 9)))
    assert [*tmp_path.glob("profile/**/*.xplane.pb")]


def test_nothing_is_recorded_unasked(tmp_path):
    toy.run(tmp_path, steps=1)
    assert not (tmp_path / "profile").exists()


def test_the_first_step_is_not_behind_the_last():
    with pytest.raises(ValueError, match="the first step is after the last"):
        Hardware(profile=(3, 2))
