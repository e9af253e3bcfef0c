import base64
import io
import json
import re

import numpy as np
import pytest
from matplotlib.image import imread

from glfa_jax.report import figures, inputs
from tests.report import fake


def decode(uri: str) -> np.ndarray:
    return imread(io.BytesIO(base64.b64decode(uri.split(",")[1])), format="png")


def test_flat_map_is_hot_above_cold_below_and_clear_outside_the_cortex():
    mask = np.zeros((6, 8), bool)
    mask[1:4, 2:6] = True
    mask[1, 2] = False
    values = np.zeros((6, 8))
    values[2, 3], values[2, 4], values[3, 5], values[3, 2] = 1.0, -1.0, 9.0, np.nan
    picture = decode(figures.flat_map(values, mask=mask, limit=2.0))
    assert picture.shape == (3, 4, 4)  # cropped to the cortex
    assert picture[0, 0, 3] == 0
    assert picture[2, 0, 3] == 0  # not finite
    assert picture[0, 1, 3] == 1
    red, blue = picture[..., 0], picture[..., 2]
    assert red[1, 1] > 2 * blue[1, 1]
    assert blue[1, 2] > 2 * red[1, 2]
    # Beyond the limit: the end of the colour bar.
    np.testing.assert_allclose(picture[2, 3], decode(figures.colour_bar())[0, -1], atol=1 / 255)


def test_limits_are_symmetric_shared_and_blind_outside_the_cortex():
    mask = np.zeros((10, 10), bool)
    mask[:5] = True
    before, after = np.full((2, 10, 10), 1.0), np.full((2, 10, 10), -2.04)
    before[:, 5:] = 50.0
    assert figures.map_limit([before, after], mask) == pytest.approx(2.1)


def test_smoothing_keeps_a_constant_and_steps_over_what_is_not_finite():
    values = np.full(40, 3.0)
    values[[0, 17]] = np.nan
    np.testing.assert_allclose(figures.smooth(values, window=5), 3.0)
    noisy = np.random.default_rng(0).normal(size=900)
    window = figures.smoothing_window(900)
    assert window == 31
    np.testing.assert_allclose(
        figures.smooth(noisy, window=window)[100], noisy[85:116].mean(), atol=1e-12
    )


@pytest.mark.parametrize("points", [1, 2, 50])
def test_loss_curve_follows_the_colours_of_the_page(points):
    entries = [
        {"step": 10 * i, "time": 0.0, "loss": 5.0 * 0.9**i, "diffusion": 1.0}
        for i in range(1, points + 1)
    ]
    svg = figures.loss_curve(entries, salt="x", label='a "quoted" label')
    assert "var(--accent)" in svg
    assert "var(--extra-0)" in svg
    assert "diffusion" in svg
    assert "&quot;quoted&quot;" in svg
    assert not re.search(r"#0[1-8]0[1-8]0[1-8]", svg)
    assert svg == figures.loss_curve(entries, salt="x", label='a "quoted" label')


def test_interval_places_values_in_proportion():
    svg = figures.interval(
        0.5, low=0.25, high=0.75, mark=0.0, span=(0.0, 1.0), filled=True, label="m"
    )
    assert 'cx="50.00%"' in svg
    assert 'x1="26.00%" x2="74.00%"' in svg
    assert 'x1="2.00%" x2="2.00%" y1="3"' in svg


def test_missing_interval_is_the_normal_approximation_and_marked(tmp_path):
    run = inputs.read(fake.make(tmp_path / "run", clips=1))
    rows = json.loads((tmp_path / "run" / "metrics.json").read_text())
    rows[0] |= {"mean": 0.5, "std": 0.2, "n": 16}
    del rows[0]["low"], rows[0]["high"]
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(rows))
    metric = inputs.read(tmp_path / "run").metrics[0]
    assert (metric.low, metric.high) == (pytest.approx(0.402), pytest.approx(0.598))
    assert metric.approximate
    assert not run.metrics[0].approximate
