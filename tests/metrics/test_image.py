import numpy as np
import pytest

from glfa_jax.metrics.image import pixel_correlation, psnr, ssim

RNG = np.random.default_rng(0)
TRUTH = RNG.integers(0, 256, (3, 2, 11, 13, 3), dtype=np.uint8)
NOISY = np.clip(TRUTH + RNG.normal(0, 30, TRUTH.shape), 0, 255).astype(np.uint8)


def ssim_by_definition(a, b):
    """Wang et al. 2004 with a uniform 7x7 window and sample covariances, whole windows only."""
    a, b = a.astype(float), b.astype(float)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for channel in range(3):
        for i in range(a.shape[0] - 6):
            for j in range(a.shape[1] - 6):
                x, y = (v[i : i + 7, j : j + 7, channel].ravel() for v in (a, b))
                (xx, xy), (_, yy) = np.cov(x, y)
                mx, my = x.mean(), y.mean()
                values.append(
                    (2 * mx * my + c1) * (2 * xy + c2) / ((mx**2 + my**2 + c1) * (xx + yy + c2))
                )
    return np.mean(values)


def test_ssim_is_its_definition_averaged_over_frames():
    expected = [
        np.mean([ssim_by_definition(a, b) for a, b in zip(clip, true, strict=True)])
        for clip, true in zip(NOISY, TRUTH, strict=True)
    ]
    np.testing.assert_allclose(ssim(NOISY, truth=TRUTH), expected, rtol=1e-9)


def test_psnr_is_its_definition_averaged_over_frames():
    error = ((NOISY.astype(float) - TRUTH) ** 2).mean(axis=(2, 3, 4))
    expected = (10 * np.log10(255**2 / error)).mean(axis=1)
    np.testing.assert_allclose(psnr(NOISY, truth=TRUTH), expected, rtol=1e-9)


def test_a_frame_that_equals_its_truth_counts_at_most_so_much_and_no_other_frame_more():
    some = NOISY.copy()
    some[1, 0] = TRUTH[1, 0]
    expected = psnr(NOISY, truth=TRUTH)
    expected[1] = (100 + psnr(NOISY[1:2, 1:], truth=TRUTH[1:2, 1:])[0]) / 2
    np.testing.assert_allclose(psnr(some, truth=TRUTH, most=100.0), expected, rtol=1e-12)
    np.testing.assert_array_equal(psnr(TRUTH, truth=TRUTH, most=100.0), 100)


def test_correlation_is_numpys_averaged_over_frames():
    expected = [
        np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(c, t, strict=True)])
        for c, t in zip(NOISY, TRUTH, strict=True)
    ]
    np.testing.assert_allclose(pixel_correlation(NOISY, truth=TRUTH), expected, rtol=1e-9)


def test_a_video_resembles_itself_perfectly():
    np.testing.assert_allclose(ssim(TRUTH, truth=TRUTH), 1)
    np.testing.assert_allclose(pixel_correlation(TRUTH, truth=TRUTH), 1)
    np.testing.assert_allclose(pixel_correlation(255 - TRUTH, truth=TRUTH), -1)
    assert np.isposinf(psnr(TRUTH, truth=TRUTH)).all()


def test_a_blank_frame_correlates_with_nothing():
    blank = np.full_like(TRUTH, 128)
    np.testing.assert_array_equal(pixel_correlation(blank, truth=TRUTH), 0)
    assert np.isfinite(ssim(blank, truth=TRUTH)).all()


@pytest.mark.parametrize("metric", [ssim, psnr, pixel_correlation])
@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (NOISY[:2], TRUTH, "same shape"),
        (NOISY[0], TRUTH[0], "frames, height, width, 3"),
        (NOISY / 255.0, TRUTH / 255.0, "must be uint8"),
        (NOISY[:0], TRUTH[:0], "none empty"),
    ],
)
def test_what_is_no_pair_of_videos_is_rejected(metric, prediction, truth, message):
    with pytest.raises(ValueError, match=message):
        metric(prediction, truth=truth)


def test_frames_smaller_than_the_window_are_rejected():
    with pytest.raises(ValueError, match="6x13 pixels are smaller than its 7x7 window"):
        ssim(NOISY[:, :, :6], truth=TRUTH[:, :, :6])
