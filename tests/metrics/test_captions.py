import numpy as np
import pytest

from glfa_jax.metrics.captions import caption_similarity

RNG = np.random.default_rng(0)
FRAMES = RNG.normal(size=(3, 5, 8)).astype(np.float32)
CAPTIONS = RNG.normal(size=(3, 8)).astype(np.float32)


def test_it_is_the_cosine_of_every_frame_with_its_clips_caption():
    expected = [
        np.mean([a @ c / np.sqrt((a @ a) * (c @ c)) for a in clip])
        for clip, c in zip(FRAMES.astype(float), CAPTIONS.astype(float), strict=True)
    ]
    np.testing.assert_allclose(caption_similarity(FRAMES, truth=CAPTIONS), expected, rtol=1e-6)
    own = np.repeat(CAPTIONS[:, None], 2, axis=1)
    np.testing.assert_allclose(caption_similarity(own, truth=3 * CAPTIONS), 1, rtol=1e-6)
    assert (caption_similarity(own, truth=np.roll(CAPTIONS, 1, axis=0)) < 1).all()


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        (CAPTIONS[:2], "must be .clips, frames, values., and captions .2, 8."),
        (CAPTIONS[:, :3], "must be"),
        (CAPTIONS * np.inf, "not all values are finite"),
    ],
)
def test_what_cannot_be_compared_is_rejected(captions, message):
    with pytest.raises(ValueError, match=message):
        caption_similarity(FRAMES, truth=captions)
