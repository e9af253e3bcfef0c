from itertools import pairwise

import jax
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.registration import optical_flow_tvl1

from glfa_jax.metrics.optical_flow import tvl1

RNG = np.random.default_rng(0)


def moving(height: int, width: int) -> np.ndarray:
    """A noisy texture in three frames, which moves by several pixels: (3, height, width)."""
    texture = gaussian_filter(RNG.random((height + 12, width + 12)), 2)
    texture = (texture - texture.min()) / np.ptp(texture)
    frames = [texture[i : i + height, 12 - 2 * i : 12 - 2 * i + width] for i in (0, 3, 5)]
    return (np.array(frames) + RNG.normal(0, 0.01, (3, height, width))).astype(np.float32)


# Of one level, of several, and with odd sides, which halve unevenly.
@pytest.mark.parametrize("shape", [(20, 24), (66, 70), (35, 65)])
def test_flow_is_that_of_scikit_image(shape):
    video = moving(*shape)
    expected = [optical_flow_tvl1(*pair) for pair in pairwise(video)]
    found = jax.device_get(tvl1(video[:-1], video[1:]))
    # float32 here and there; where a pixel is at a threshold, either may take the other side.
    np.testing.assert_allclose(found, expected, atol=5e-3)
    assert np.abs(found - expected).mean() < 1e-5 < np.abs(expected).mean()


def test_a_level_that_is_solved_is_left_alone():
    """The stopping rule: still frames with faint noise are solved before all warps are done."""
    still = np.full((1, 20, 24), 0.5, np.float32) + RNG.normal(0, 1e-3, (2, 1, 20, 24))
    before, after = still.astype(np.float32)
    expected = optical_flow_tvl1(before[0], after[0])
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(tvl1(before, after)[0], expected, atol=1e-5)


def test_pairs_do_not_know_each_other():
    video = moving(20, 24)
    both = jax.device_get(tvl1(video[:-1], video[1:]))
    for i in range(2):
        alone = jax.device_get(tvl1(video[i : i + 1], video[i + 1 : i + 2]))
        np.testing.assert_allclose(both[i], alone[0], atol=1e-4)
