import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from glfa_jax.metrics.motion import flow_distance, optical_flow

SIZE, MARGIN = 40, 10
RNG = np.random.default_rng(0)
_TEXTURE = gaussian_filter(RNG.random((SIZE + 2 * MARGIN,) * 2 + (3,)), (2, 2, 0))
TEXTURE = np.round(255 * (_TEXTURE - _TEXTURE.min()) / (_TEXTURE.max() - _TEXTURE.min())).astype(
    np.uint8
)


def moving(*, down: int, right: int, frames: int = 2) -> np.ndarray:
    """One clip of a texture that moves so many pixels a frame."""
    starts = [(MARGIN - i * down, MARGIN - i * right) for i in range(frames)]
    return np.array([[TEXTURE[y : y + SIZE, x : x + SIZE] for y, x in starts]])


STILL, RIGHT, DOWN = moving(down=0, right=0), moving(down=0, right=2), moving(down=1, right=0)


def test_flow_is_the_displacement_from_a_frame_to_the_next():
    for video, expected in ((RIGHT, (0, 2)), (DOWN, (1, 0))):
        flow = optical_flow(video)
        assert flow.shape == (1, 1, 2, SIZE, SIZE)
        np.testing.assert_allclose(np.median(flow, axis=(0, 1, 3, 4)), expected, atol=0.05)
    np.testing.assert_array_equal(optical_flow(STILL), 0)


def test_the_error_is_the_distance_of_both_motions_in_pixels():
    prediction, truth = (np.concatenate(v) for v in ((STILL, DOWN, RIGHT), (RIGHT, RIGHT, RIGHT)))
    error = flow_distance(optical_flow(prediction), truth=optical_flow(truth))
    assert error.shape == (3,)
    # The flow is an estimate: near the border it misses what comes into view.
    np.testing.assert_allclose(error, [2, np.sqrt(5), 0], atol=0.1)
    assert error[2] == 0


def test_the_distance_is_its_definition_averaged_over_pixels_and_pairs():
    flow, truth = RNG.normal(size=(2, 3, 4, 2, 5, 6))
    expected = [
        np.mean([np.hypot(*(a[i, :, y, x] - b[i, :, y, x])) for i, y, x in np.ndindex(4, 5, 6)])
        for a, b in zip(flow, truth, strict=True)
    ]
    np.testing.assert_allclose(flow_distance(flow, truth=truth), expected)


def test_colour_and_brightness_alone_do_not_move():
    dimmed = np.stack([np.full((16, 16, 3), v, np.uint8) for v in (10, 200)])[None]
    np.testing.assert_array_equal(optical_flow(dimmed), 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: optical_flow(STILL[:, :1]), "one frame does not move"),
        (lambda: optical_flow(STILL / 255), "must be uint8"),
        (lambda: flow_distance(np.ones((1, 1, 3, 4, 4)), truth=np.ones((1, 1, 3, 4, 4))), "flows"),
        (lambda: flow_distance(np.ones((1, 1, 2, 4, 4)), truth=np.ones((1, 2, 2, 4, 4))), "flows"),
    ],
)
def test_what_does_not_move_is_rejected(call, message):
    with pytest.raises(ValueError, match=message):
        call()
