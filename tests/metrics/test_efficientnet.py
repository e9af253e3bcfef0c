import numpy as np
import pytest
from scipy.spatial.distance import correlation

from glfa_jax.metrics.efficientnet import correlation_distance

RNG = np.random.default_rng(0)
TRUTH = RNG.normal(1, 1, (5, 3, 17)).astype(np.float32)
GENERATED = (TRUTH + RNG.normal(0, 1, TRUTH.shape)).astype(np.float32)


def test_it_is_scipys_distance_of_frames_at_the_same_place():
    expected = [
        np.mean([correlation(GENERATED[i, j], TRUTH[i, j]) for j in range(3)]) for i in range(5)
    ]
    np.testing.assert_allclose(correlation_distance(GENERATED, truth=TRUTH), expected, rtol=1e-6)
    assert (correlation_distance(GENERATED[:, ::-1], truth=TRUTH) != expected).all()


def test_only_the_pattern_of_the_features_counts():
    np.testing.assert_allclose(correlation_distance(3 * TRUTH + 7, truth=TRUTH), 0, atol=1e-6)
    np.testing.assert_allclose(correlation_distance(-TRUTH, truth=TRUTH), 2, atol=1e-6)
    alike = np.full_like(TRUTH, 0.3)
    np.testing.assert_array_equal(correlation_distance(alike, truth=TRUTH), 1)


@pytest.mark.parametrize(
    ("generated", "message"),
    [
        (TRUTH[:2], "the same shape"),
        (TRUTH[:, :2], "the same shape"),
        (TRUTH * np.nan, "not all values are finite"),
    ],
)
def test_what_cannot_be_compared_is_rejected(generated, message):
    with pytest.raises(ValueError, match=message):
        correlation_distance(generated, truth=TRUTH)
