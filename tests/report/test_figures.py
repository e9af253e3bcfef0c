import re

import numpy as np
import pytest

from glfa_jax.report import figures


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
