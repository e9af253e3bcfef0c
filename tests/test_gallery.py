"""The examples of the gallery run, draw a figure, and show what their text says."""

import runpy
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "gallery"


def falls(values: Any) -> bool:
    return all(after < before for before, after in pairwise(values))


def maps_of_subjects_are_alike(example: dict[str, Any]) -> None:
    assert example["windows"].shape == (8, 2, 3, 64, 64)
    assert 0.3 < np.nanmean(example["isc"]) < 0.95


def accuracy_starts_at_chance(example: dict[str, Any]) -> None:
    chance, accuracy = example["chance"], example["accuracy"]
    assert chance[2] == pytest.approx(0.75)
    np.testing.assert_allclose(accuracy["unrelated"], list(chance.values()), atol=0.04)
    assert (np.diff(np.stack(list(accuracy.values())), axis=0) > 0).all()
    assert example["drawn"].mean() == pytest.approx(example["exact"].mean(), abs=0.02)


def tiles_agree_with_lax(example: dict[str, Any]) -> None:
    assert example["difference"] < 1e-5


def ssim_falls_with_noise(example: dict[str, Any]) -> None:
    means = [each.mean() for each in example["values"]]
    assert means[0] == pytest.approx(1)
    assert falls(means)
    assert example["other"].mean() < means[1]


def error_falls_with_steps(example: dict[str, Any]) -> None:
    errors = example["errors"]
    assert falls(errors["ddim"])
    assert falls(errors["dpm++"])
    assert errors["dpm++"][2] < errors["ddim"][2]  # at 25 steps


SHOWS: dict[str, Callable[[dict[str, Any]], None]] = {
    "local_layer": tiles_agree_with_lax,
    "nway_accuracy": accuracy_starts_at_chance,
    "sampling_steps": error_falls_with_steps,
    "simulated_study": maps_of_subjects_are_alike,
    "ssim_of_videos": ssim_falls_with_noise,
}


def test_every_example_is_tested():
    assert {file.stem for file in FOLDER.glob("*.py")} == set(SHOWS)


@pytest.mark.parametrize("name", SHOWS)
def test_an_example_shows_what_it_says(name: str, monkeypatch: pytest.MonkeyPatch):
    plt.switch_backend("agg")
    drawn = []
    monkeypatch.setattr(plt, "show", lambda: drawn.extend(plt.get_fignums()))
    try:
        SHOWS[name](runpy.run_path(str(FOLDER / f"{name}.py")))
    finally:
        plt.close("all")
    assert len(drawn) == 1
