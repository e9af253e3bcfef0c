import numpy as np
import pytest

from glfa_jax.metrics.embeddings import (
    clip_similarity,
    consistency,
    gated_consistency,
    video_similarity,
)

RNG = np.random.default_rng(0)
TRUTH = RNG.normal(1, 1, (4, 3, 16)).astype(np.float32)
GENERATED = (TRUTH + RNG.normal(0, 1, TRUTH.shape)).astype(np.float32)


def cosine(a, b):
    a, b = a.astype(float), b.astype(float)
    return a @ b / np.sqrt((a @ a) * (b @ b))


def pearson(a, b):
    return np.corrcoef(a, b)[0, 1]


def test_clip_similarity_is_the_cosine_of_frames_at_the_same_place():
    expected = [np.mean([cosine(GENERATED[i, j], TRUTH[i, j]) for j in range(3)]) for i in range(4)]
    np.testing.assert_allclose(clip_similarity(GENERATED, truth=TRUTH), expected, rtol=1e-6)
    np.testing.assert_allclose(clip_similarity(TRUTH, truth=5 * TRUTH), 1, rtol=1e-12)
    assert (clip_similarity(TRUTH, truth=TRUTH[:, ::-1]) < 1).all()


@pytest.mark.parametrize(("measure", "of"), [("cosine", cosine), ("pearson", pearson)])
def test_consistency_is_the_similarity_of_adjacent_frames(measure, of):
    expected = [np.mean([of(clip[0], clip[1]), of(clip[1], clip[2])]) for clip in TRUTH]
    np.testing.assert_allclose(consistency(TRUTH, measure=measure), expected, rtol=1e-6)
    still = np.repeat(TRUTH[:, :1], 3, axis=1)
    np.testing.assert_allclose(consistency(still, measure=measure), 1, rtol=1e-12)


def test_only_pearson_takes_no_notice_of_what_all_values_have_in_common():
    shifted = TRUTH.astype(float) + 10
    np.testing.assert_allclose(
        consistency(shifted, measure="pearson"), consistency(TRUTH, measure="pearson"), atol=1e-9
    )
    assert (consistency(shifted, measure="cosine") > consistency(TRUTH, measure="cosine")).all()


def test_the_gate_lets_through_what_exceeds_the_threshold():
    values = consistency(TRUTH, measure="cosine")
    gated = gated_consistency(
        TRUTH, measure="cosine", similarity=np.array([0.59, 0.6, 0.61, 1.0]), threshold=0.6
    )
    np.testing.assert_array_equal(gated, values * [0, 0, 1, 1])


def test_video_similarity_pools_frames_before_it_normalises():
    expected = [cosine(a.mean(0), b.mean(0)) for a, b in zip(GENERATED, TRUTH, strict=True)]
    found = video_similarity(GENERATED, truth=TRUTH)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    # Neither the frames' order nor their number counts, their lengths do.
    np.testing.assert_allclose(video_similarity(GENERATED[:, ::-1], truth=TRUTH), found)
    twice = np.repeat(GENERATED, 2, axis=1)
    np.testing.assert_allclose(video_similarity(twice, truth=TRUTH), found)
    longer = GENERATED * np.array([9, 1, 1])[:, None]
    assert (np.abs(video_similarity(longer, truth=TRUTH) - found) > 1e-3).all()


def test_nothing_resembles_nothing():
    blank = np.zeros_like(TRUTH)
    np.testing.assert_array_equal(clip_similarity(blank, truth=TRUTH), 0)
    np.testing.assert_array_equal(video_similarity(TRUTH, truth=blank), 0)
    uniform = np.full_like(TRUTH, 1.1)
    np.testing.assert_array_equal(consistency(uniform, measure="pearson"), 0)
    np.testing.assert_allclose(consistency(uniform, measure="cosine"), 1)


@pytest.mark.parametrize("value", [0.1, 0.3, 7.7])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_that_are_all_alike_correlate_with_nothing(value, dtype):
    alike = np.full((1, 3, 768), value, dtype)
    np.testing.assert_array_equal(consistency(alike, measure="pearson"), 0)
    np.testing.assert_allclose(consistency(alike, measure="cosine"), 1, rtol=1e-12)


def unfinished(embeddings):
    return np.where(np.arange(16) == 3, np.nan, embeddings)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: clip_similarity(TRUTH[:2], truth=TRUTH), "the same shape"),
        (lambda: clip_similarity(TRUTH[:, :2], truth=TRUTH), "the same shape"),
        (lambda: video_similarity(TRUTH[:2], truth=TRUTH), "same number of clips and of values"),
        (lambda: clip_similarity(TRUTH[0], truth=TRUTH[0]), "clips, frames, values"),
        (lambda: consistency(TRUTH[:0], measure="cosine"), "none empty"),
        (lambda: consistency(TRUTH[:, :1], measure="cosine"), "2 are needed"),
        (lambda: consistency(unfinished(TRUTH), measure="cosine"), "not all values are finite"),
        (lambda: consistency(TRUTH, measure="spearman"), "'spearman' must be"),
        (
            lambda: gated_consistency(
                TRUTH, measure="cosine", similarity=np.ones(3), threshold=0.6
            ),
            "one for each of 4 clips",
        ),
        (
            lambda: gated_consistency(
                TRUTH, measure="cosine", similarity=np.full(4, np.nan), threshold=0.6
            ),
            "must be finite",
        ),
    ],
)
def test_what_has_no_meaning_is_rejected(call, message):
    with pytest.raises(ValueError, match=message):
        call()
