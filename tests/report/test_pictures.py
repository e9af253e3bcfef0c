"""Maps as pictures: their colours, their edges, and the limits they share."""

import base64
import io

import numpy as np
import pytest
from matplotlib.image import imread

from glfa_jax.report.pictures import COLD_HOT, Scale, colour_bar, flat_map

TWO = Scale(-2.0, 2.0, COLD_HOT)


def decode(uri: str) -> np.ndarray:
    return imread(io.BytesIO(base64.b64decode(uri.split(",")[1])), format="png")


def test_flat_map_is_hot_above_cold_below_and_clear_outside_the_cortex():
    mask = np.zeros((6, 8), bool)
    mask[1:4, 2:6] = True
    mask[1, 2] = False
    values = np.zeros((6, 8))
    values[2, 3], values[2, 4], values[3, 5], values[3, 2] = 1.0, -1.0, 9.0, np.nan
    picture = decode(flat_map(values, mask=mask, scale=TWO, words="").source)
    assert picture.shape == (3, 4, 4)  # cropped to the cortex
    assert picture[0, 0, 3] == 0
    assert picture[2, 0, 3] == 0  # not finite
    assert picture[0, 1, 3] == 1
    red, blue = picture[..., 0], picture[..., 2]
    assert red[1, 1] > 2 * blue[1, 1]
    assert blue[1, 2] > 2 * red[1, 2]
    # Beyond the limit: the end of the colour bar.
    np.testing.assert_allclose(
        picture[2, 3],
        decode(colour_bar(TWO, unit="z", words="")["picture"].source)[0, -1],
        atol=1 / 255,
    )


def test_limits_are_symmetric_shared_and_blind_outside_the_cortex():
    mask = np.zeros((10, 10), bool)
    mask[:5] = True
    before, after = np.full((2, 10, 10), 1.0), np.full((2, 10, 10), -2.04)
    before[:, 5:] = 50.0
    assert Scale.around_zero([before, after], mask).high == pytest.approx(2.1)
