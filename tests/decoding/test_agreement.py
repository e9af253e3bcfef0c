"""How alike samples are: by hand, and by numpy's own correlation."""

import numpy as np

from glfa_jax.decoding.agreement import agreement


def test_it_is_the_mean_correlation_of_all_pairs():
    videos = np.random.default_rng(0).integers(256, size=(3, 2, 4, 5, 6, 3), dtype=np.uint8)
    found = agreement(videos)
    for clip in range(2):
        table = np.corrcoef(videos[:, clip].reshape(3, -1))
        np.testing.assert_allclose(found[clip], table[[0, 0, 1], [1, 2, 2]].mean(), atol=1e-12)


def test_alike_opposite_and_plain_videos():
    ramp = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 1, 3)
    np.testing.assert_allclose(agreement(np.stack([ramp, ramp])), 1)
    np.testing.assert_allclose(agreement(np.stack([ramp, 11 - ramp])), -1)
    np.testing.assert_array_equal(agreement(np.stack([ramp, np.full_like(ramp, 7)])), 0)
    assert np.isnan(agreement(ramp[None])).all()  # nothing to compare with
