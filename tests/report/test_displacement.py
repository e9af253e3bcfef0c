"""Displacements on the report's page: what is compared with what, in words and as arrows."""

import re
from dataclasses import replace

import numpy as np
import pytest

from glfa_jax.report import figures
from glfa_jax.report.displacement import displacement_section
from glfa_jax.report.inputs import Maps

SIDE, MM = 40, 2.0
MASK = np.zeros((SIDE, SIDE), bool)
MASK[4:36, 3:19] = MASK[4:36, 22:37] = True


def field(rows: float, columns: float) -> np.ndarray:
    return np.array([rows, columns]) * MASK[..., None]


def maps(shifts: np.ndarray | None, displacements: np.ndarray | None = None) -> Maps:
    zero = np.zeros((3, SIDE, SIDE))
    known = {"isc_before": 0.1, "isc_after": 0.2, "isc_one_kernel": None, "undone": None}
    more = {"shifts": shifts, "displacements": displacements, "pixel_mm": MM}
    return Maps(MASK, ["01", "02", "03"], zero, zero, **known, **more)


def words(given: Maps, *, decoded: str = "03") -> str:
    section = displacement_section(given, trained=["01", "02"], decoded=[decoded])
    assert section is not None
    [one] = section["subjects"]
    return one["words"]


def test_a_decoded_subject_is_compared_with_the_mean_of_the_training_subjects():
    """A displacement that all share cannot be told from fMRI and is no part of the numbers."""
    rng = np.random.default_rng(0)
    true = np.stack([field(1, 0), field(-1, 0), field(0, 3) + rng.normal(size=(SIDE, SIDE, 2))])
    found = -0.5 * true
    said = words(maps(found, true))
    difference = true[2] - true[:2].mean(0)
    size = MM * np.sqrt(np.square(difference[MASK]).sum(-1).mean())
    assert f"displacement found for subject 03 is {size / 2:.1f} mm (root mean square" in said
    assert f"the true one {size:.1f} mm, and they correlate with 1.00." in said
    assert words(maps(found + field(5, -2), true + field(0, 7))) == said
    assert "correlate with −1.00" in words(maps(-found, true))


def test_a_training_subject_is_compared_with_the_others():
    assert "for subject 01 is 8.0 mm" in words(
        maps(np.stack([field(0, 4), field(0, 0), field(9, 9)])), decoded="01"
    )


def test_one_layer_for_all_finds_nothing():
    shared = np.stack([field(0, 2)] * 3)
    true = np.stack([field(0, 0), field(0, 0), field(3, 0)])
    assert words(maps(shared, true)) == (
        "Subject 03 and the training subjects share one layer, so no displacement between them "
        "was found; the true one is 6.0 mm (root mean square)."
    )
    for nothing in (maps(shared), maps(None, true)):
        assert displacement_section(nothing, trained=["01", "02"], decoded=["03"]) is None


def test_without_the_size_of_a_pixel_lengths_are_in_pixels():
    given = replace(maps(np.stack([field(0, 0), field(0, 0), field(0, 3)])), pixel_mm=None)
    assert "is 3.0 px (" in words(given)


def test_hemispheres_do_not_mix_in_an_arrow_and_each_leads_where_the_field_does():
    halves = np.where(np.arange(SIDE)[:, None] < 20, [0, 3.0], [-3.0, 0]) * MASK[..., None]
    scale = figures.grid_of([halves], mask=MASK)
    svg = figures.arrows(
        halves,
        mask=MASK,
        curvature=np.where(MASK, np.linspace(-1, 1, SIDE), 0),
        scale=scale,
        pixel_size=MM,
        unit="mm",
        salt="x",
        label="arrows",
    )
    assert not re.search(r"#0[1-9a]0[1-9a]0[1-9a]", svg)
    assert "var(--sulci)" in svg
    *drawn, key = [
        np.array(re.findall(r"[ML] (\S+) (\S+)", path), float)
        for path in re.findall(r'<path d="([^"]*)"[^>]*style="fill: var\(--(?:ink|accent)\)', svg)
    ]
    ways = np.array([corners[3] - corners[0] for corners in drawn])  # from foot to tip
    right, up = ways[:, 0] > 5 * abs(ways[:, 1]), -ways[:, 1] > 5 * abs(ways[:, 0])
    assert right.sum() > 60
    assert up.sum() > 60
    assert (right | up).all()
    # The scale's is 5 mm long, the others 6 mm.
    assert ">5 mm<" in svg
    assert np.ptp(key[:, 0]) == pytest.approx(5 / 6 * np.median(abs(ways).max(1)), rel=0.02)
