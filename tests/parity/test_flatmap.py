"""Images are resized as torch resizes them where every pixel is cortex."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from glfa_jax.data import flatmap


@pytest.mark.parametrize(("shape", "map_size"), [((71, 45), 16), ((33, 64), 32), ((20, 31), 64)])
def test_an_image_is_resized_as_by_torch(shape, map_size):
    rng = np.random.default_rng(0)
    mask = np.where(rng.random(shape) < 0.7, 1, -1).astype(np.int8)
    mask[[0, -1]] = mask[:, [0, -1]] = 1  # the region's bounding box is the whole image
    values = rng.normal(size=shape)
    size = (map_size, map_size)

    def resized(image: np.ndarray, **mode) -> np.ndarray:
        return functional.interpolate(torch.tensor(image)[None, None], size, **mode)[0, 0].numpy()

    inside = resized(mask.astype(np.float64), mode="nearest-exact") == 1
    signal = resized(values, mode="bilinear", align_corners=False)
    flat = flatmap.from_image(mask, map_size=map_size)
    np.testing.assert_array_equal(flat.mask, inside)
    np.testing.assert_allclose(flat.to_map(values.ravel()), signal * inside, atol=1e-6)
