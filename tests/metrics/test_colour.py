from colorsys import rgb_to_hsv

import numpy as np
import pytest

from glfa_jax.metrics.colour import hue_correlation

RNG = np.random.default_rng(0)
TRUTH = RNG.integers(0, 256, (3, 2, 8, 9, 3), dtype=np.uint8)
NOISY = np.clip(TRUTH + RNG.normal(0, 30, TRUTH.shape), 0, 255).astype(np.uint8)


def steps(frame):
    """Hues in steps of two degrees, halves rounded up."""
    hues = np.array([rgb_to_hsv(*pixel / 255)[0] for pixel in frame.reshape(-1, 3)])
    return np.floor(180 * hues + 0.5 + 1e-9) % 180


def cosine(a, b):
    return a @ b / np.sqrt((a @ a) * (b @ b))


def pearson(a, b):
    return np.corrcoef(a, b)[0, 1]


@pytest.mark.parametrize(("measure", "of"), [("cosine", cosine), ("pearson", pearson)])
def test_it_is_its_definition_on_hues_in_steps_of_two_degrees(measure, of):
    expected = [
        np.mean([of(*(steps(x) for x in pair)) for pair in zip(clip, true, strict=True)])
        for clip, true in zip(NOISY, TRUTH, strict=True)
    ]
    found = hue_correlation(NOISY, truth=TRUTH, measure=measure)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_allclose(hue_correlation(TRUTH, truth=TRUTH, measure=measure), 1)


def test_unrelated_hues_score_high_by_cosine_and_nothing_by_pearson():
    a, b = RNG.integers(0, 256, (2, 1, 1, 60, 60, 3), dtype=np.uint8)
    # Hues of random pixels have mean 0.5 and mean square 1/3 on a circle of length 1.
    assert hue_correlation(a, truth=b, measure="cosine") == pytest.approx(0.75, abs=0.03)
    # Four standard errors of a correlation over 3600 pixels.
    assert hue_correlation(a, truth=b, measure="pearson") == pytest.approx(0, abs=4 / 60)


@pytest.mark.parametrize("measure", ["cosine", "pearson"])
def test_what_has_no_hues_says_nothing(measure):
    grey = np.repeat(TRUTH[..., :1], 3, axis=-1)
    np.testing.assert_array_equal(hue_correlation(grey, truth=TRUTH, measure=measure), 0)


def test_one_hue_at_any_brightness_correlates_with_nothing():
    brightness = RNG.integers(1, 64, (3, 2, 8, 9, 1))
    orange = (brightness * [4, 2, 1]).astype(np.uint8)
    found = hue_correlation(orange, truth=TRUTH, measure="pearson")
    np.testing.assert_array_equal(found, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truth": TRUTH[:2]}, "same shape"),
        ({"measure": "circular"}, "'circular' must be"),
    ],
)
def test_what_has_no_meaning_is_rejected(change, message):
    with pytest.raises(ValueError, match=message):
        hue_correlation(NOISY, **{"truth": TRUTH, "measure": "cosine"} | change)
