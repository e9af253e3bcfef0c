"""How alike subjects are."""

import numpy as np
import pytest

from glfa_jax.evaluation.alignment import Correlation

SIDE, VOLUMES = 24, 400


def test_equal_signals_correlate_as_noise_lets_them_over_time_and_by_pixel():
    rng = np.random.default_rng(0)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[2:] = True
    signal = rng.standard_normal((VOLUMES, SIDE, SIDE))
    pattern = 3 * rng.standard_normal((SIDE, SIDE))  # the same at all times: correlates nothing
    noises = (0.5, 1.5)
    maps = np.stack([signal + noise * rng.standard_normal(signal.shape) for noise in noises])
    found = Correlation(2, mask)
    for part in np.split(maps + pattern, 4, axis=1):
        found.add(part)
    assert found.mean() == pytest.approx((1.25 * 3.25) ** -0.5, abs=0.01)


def test_one_subject_is_alike_nobody():
    assert np.isnan(Correlation(1, np.ones((SIDE, SIDE), bool)).mean())
