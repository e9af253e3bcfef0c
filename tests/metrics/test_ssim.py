from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from glfa_jax.metrics.ssim import ssim

RNG = np.random.default_rng(0)
SHAPE = (2, 2, 23, 17, 3)
RANDOM = RNG.integers(0, 256, SHAPE, dtype=np.uint8)
DARK = RNG.integers(0, 3, SHAPE, dtype=np.uint8)
# A bright surface of little contrast: variances of 0.1 beside squared means of 65,000.
BRIGHT = np.where(RNG.random(SHAPE) < 0.1, 254, 255).astype(np.uint8)
CONSTANT = np.full(SHAPE, 77, np.uint8)
BLACK, WHITE = np.zeros(SHAPE, np.uint8), np.full(SHAPE, 255, np.uint8)
CHECKERED = np.where(np.indices(SHAPE).sum(axis=0) % 2, WHITE, BLACK)


def by_scikit_image(prediction: np.ndarray, truth: np.ndarray) -> list[float]:
    of_frame = partial(structural_similarity, win_size=7, data_range=255, channel_axis=-1)
    return [
        float(np.mean([of_frame(a, b) for a, b in zip(clip, true, strict=True)]))
        for clip, true in zip(prediction, truth, strict=True)
    ]


@pytest.mark.parametrize(
    ("prediction", "truth"),
    [
        (RANDOM, RANDOM[::-1]),
        (RANDOM, 255 - RANDOM),
        (DARK, DARK[::-1]),
        (DARK, RANDOM),
        (BRIGHT, BRIGHT[::-1]),
        (CONSTANT, BRIGHT),
        (CONSTANT, RANDOM),
        (BLACK, WHITE),
        (WHITE, WHITE),
        (CHECKERED, 255 - CHECKERED),  # the largest sums and covariances there are
        (CHECKERED, CHECKERED),
        (RANDOM, RANDOM),
    ],
)
def test_it_equals_scikit_image(prediction, truth):
    found = ssim(prediction, truth=truth)
    assert found.shape == (2,)
    # Ten digits: scikit-image's own variances are rounded differences of the squared means.
    np.testing.assert_allclose(found, by_scikit_image(prediction, truth), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("height", "width"), [(7, 7), (7, 12), (9, 8)])
def test_every_size_that_holds_a_window(height, width):
    prediction, truth = RANDOM[:, :1, :height, :width], RANDOM[::-1, 1:, -height:, -width:]
    found = ssim(prediction, truth=truth)
    np.testing.assert_allclose(found, by_scikit_image(prediction, truth), rtol=0, atol=1e-10)


def test_identical_clips_score_one_to_the_last_digit_however_flat():
    for clip in (RANDOM, DARK, BRIGHT, CONSTANT, BLACK, WHITE):
        np.testing.assert_allclose(ssim(clip, truth=clip), 1, rtol=0, atol=1e-15)


def test_double_precision_stays_inside():
    ssim(RANDOM, truth=DARK)
    assert jnp.ones(1).dtype == jnp.float32
