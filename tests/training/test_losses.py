"""What the losses must be whatever the maps and embeddings are."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glfa_jax.training import losses

SEEDS = st.integers(0, 2**32 - 1)


def alignment_loss(*maps) -> losses.AlignmentLoss:
    return losses.alignment_loss(*map(jnp.asarray, maps))


def reconstruction_loss(*maps) -> jax.Array:
    return losses.reconstruction_loss(*map(jnp.asarray, maps))


def contrastive_loss(fmri, **others) -> losses.ContrastiveLoss:
    others = {name: jnp.asarray(value) for name, value in others.items()}
    return losses.contrastive_loss(jnp.asarray(fmri), **others)


def maps(seed: int, *, subjects: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Originals, aligned maps (2, subjects, 3, 4, 6) and a mask with both kinds of pixels."""
    rng = np.random.default_rng(seed)
    mask = rng.random((4, 6)) > 0.5
    mask[0, 0], mask[-1, -1] = True, False
    original, aligned = rng.standard_normal((2, 2, subjects, 3, 4, 6)).astype(np.float32)
    return original, aligned, mask.astype(np.float32)


def embeddings(seed: int, count: int, *, clips: int = 5) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((count, clips, 8))
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, subjects=st.integers(1, 4))
def test_alignment_losses_are_means_over_cortex_pixels(seed, subjects):
    original, aligned, mask = maps(seed, subjects=subjects)
    loss = alignment_loss(original, aligned, mask)
    inside = mask.astype(bool)
    expected = np.square(aligned.astype(np.float64) - original)[..., inside].mean()
    assert loss.regularisation == pytest.approx(expected, rel=1e-5)
    pairs = [
        np.square(aligned[:, i].astype(np.float64) - aligned[:, j])[..., inside].mean()
        for i, j in combinations(range(subjects), 2)
    ]
    assert loss.alignment == pytest.approx(np.mean(pairs) if pairs else 0, rel=1e-5)


def test_perfect_alignment_costs_nothing():
    original, _, mask = maps(0, subjects=1)
    same = np.repeat(original, 3, axis=1)
    assert alignment_loss(same, same, mask) == (0, 0)


def test_one_subject_has_nobody_to_be_aligned_with():
    original, aligned, mask = maps(1, subjects=1)

    def total(aligned):
        loss = alignment_loss(original, aligned, mask)
        return loss.alignment, loss.regularisation

    assert total(aligned)[0] == 0
    gradient = jax.grad(lambda aligned: sum(total(aligned)))(aligned)
    only = jax.grad(lambda aligned: total(aligned)[1])(aligned)
    assert jnp.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient, only)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, subjects=st.integers(1, 3))
def test_pixels_off_the_mask_never_matter(seed, subjects):
    original, aligned, mask = maps(seed, subjects=subjects)
    noise = 100 * np.random.default_rng(seed).standard_normal(aligned.shape).astype(np.float32)
    other = np.where(mask > 0, aligned, noise)
    assert alignment_loss(original, aligned, mask) == alignment_loss(original, other, mask)
    once, again = (reconstruction_loss(x, original, mask) for x in (aligned, other))
    np.testing.assert_array_equal(once, again)
    gradient = jax.grad(lambda x: sum(alignment_loss(original, x, mask)))(aligned)
    assert not np.asarray(gradient)[..., mask == 0].any()
    if subjects > 1:
        assert np.asarray(gradient)[..., mask == 1].any()


def test_order_of_subjects_never_matters():
    original, aligned, mask = maps(2, subjects=3)
    order = [2, 0, 1]
    ours = alignment_loss(original, aligned, mask)
    theirs = alignment_loss(original[:, order], aligned[:, order], mask)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_an_empty_mask_costs_nothing_and_is_finite():
    original, aligned, mask = maps(3, subjects=2)
    assert alignment_loss(original, aligned, np.zeros_like(mask)) == (0, 0)


def test_reconstruction_takes_a_mask_for_each_map():
    rng = np.random.default_rng(0)
    image, target = rng.standard_normal((2, 5, 4, 6)).astype(np.float32)
    masks = (rng.random((5, 4, 6)) > 0.4).astype(np.float32)
    masks[3] = 0
    ours = reconstruction_loss(image, target, masks)
    assert ours.shape == (5,)
    for i in range(5):
        inside = masks[i] > 0
        expected = np.square(image[i] - target[i])[inside].mean() if inside.any() else 0
        assert ours[i] == pytest.approx(expected, rel=1e-5)


def test_reconstruction_without_a_mask_takes_every_pixel():
    image, target = np.random.default_rng(1).standard_normal((2, 5, 4, 6)).astype(np.float32)
    ours = reconstruction_loss(image, target)
    np.testing.assert_allclose(ours, np.square(image - target).mean((1, 2)), rtol=1e-5)
    everywhere = reconstruction_loss(image, target, np.ones((4, 6), np.float32))
    np.testing.assert_allclose(ours, everywhere, rtol=1e-6)
    assert not reconstruction_loss(image, image).any()


@settings(max_examples=10, deadline=None)
@given(clips=st.sampled_from([1, 2, 7]), scale=st.floats(-2, 4))
def test_contrast_of_equal_embeddings_is_chance(clips, scale):
    same = np.repeat(embeddings(0, 1)[0, :1], clips, axis=0)
    loss = contrastive_loss(same, image=same, text=same, logit_scale=jnp.float32(scale))
    np.testing.assert_allclose(loss, np.log(clips), rtol=1e-5, atol=1e-5)


def test_contrast_of_distinct_pairs_goes_to_zero_with_the_scale():
    axes = np.eye(6, dtype=np.float32)
    values = [
        float(contrastive_loss(axes, image=axes, text=axes, logit_scale=jnp.float32(s)).total)
        for s in (0, 1, 2, 3, 5)
    ]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 1e-6


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_contrast_is_symmetric_and_forgets_the_order_of_clips(seed):
    fmri, image, text = embeddings(seed, 3)
    scale = jnp.float32(np.log(1 / 0.07))
    loss = contrastive_loss(fmri, image=image, text=text, logit_scale=scale)
    assert float(loss.total) == pytest.approx(float(loss.image + loss.text) / 2, rel=1e-6)
    swapped = contrastive_loss(image, image=fmri, text=text, logit_scale=scale)
    np.testing.assert_allclose(swapped.image, loss.image, rtol=1e-5)
    exchanged = contrastive_loss(fmri, image=text, text=image, logit_scale=scale)
    np.testing.assert_allclose(exchanged, (loss.text, loss.image, loss.total), rtol=1e-6)
    order = np.random.default_rng(seed).permutation(len(fmri))
    shuffled = contrastive_loss(
        fmri[order], image=image[order], text=text[order], logit_scale=scale
    )
    np.testing.assert_allclose(shuffled, loss, rtol=1e-4)


def test_the_logit_scale_grows_on_right_pairs_and_shrinks_on_wrong_ones():
    fmri = np.eye(5, dtype=np.float32)

    def slope(other):
        return float(
            jax.grad(
                lambda s: contrastive_loss(fmri, image=other, text=other, logit_scale=s).total
            )(jnp.float32(1.0))
        )

    assert slope(fmri) < 0 < slope(np.roll(fmri, 1, axis=0))


def test_the_gradient_of_the_logit_scale_is_that_of_finite_differences():
    fmri, image, text = embeddings(7, 3)

    def total(scale):
        return contrastive_loss(fmri, image=image, text=text, logit_scale=scale).total

    with jax.enable_x64(True):
        fmri, image, text = (x.astype(np.float64) for x in (fmri, image, text))
        at, step = np.log(1 / 0.07), 1e-5
        slope = (total(jnp.float64(at + step)) - total(jnp.float64(at - step))) / (2 * step)
        assert jax.grad(total)(jnp.float64(at)) == pytest.approx(float(slope), rel=1e-6)


def token_loss(condition, tokens, *, captions=None):
    """With captions that fill their length, unless given."""
    captions = np.arange(tokens.shape[2])[None, None] if captions is None else captions
    weights = losses.caption_weights(captions, end=captions.max())
    return losses.token_loss(condition, tokens=tokens, weights=weights)


def test_the_average_caption_is_at_token_distance_one():
    tokens = np.random.default_rng(0).normal(3, 2, (7, 1, 5, 4)).astype(np.float32)
    average = np.broadcast_to(tokens.mean(0), (7, 2, 5, 4))
    assert token_loss(average, tokens) == pytest.approx(1, rel=1e-5)
    exact = np.broadcast_to(tokens, (7, 2, 5, 4))
    assert token_loss(exact, tokens) == 0
    one_right = np.concatenate([tokens, np.broadcast_to(tokens.mean(0), tokens.shape)], axis=1)
    assert token_loss(one_right, tokens) == pytest.approx(0.5, rel=1e-5)


def test_every_window_may_have_a_caption_of_its_own():
    rng = np.random.default_rng(1)
    tokens, condition = rng.normal(3, 2, (2, 7, 2, 5, 4)).astype(np.float32)
    variance = np.square(tokens - tokens.reshape(14, 5, 4).mean(0)).sum((-2, -1)).mean()
    expected = np.square(condition - tokens).sum((-2, -1)).mean() / variance
    assert token_loss(condition, tokens) == pytest.approx(expected, rel=1e-5)
    shared = np.repeat(tokens[:, :1], 2, axis=1)
    once = token_loss(condition, tokens[:, :1])
    assert token_loss(condition, shared) == pytest.approx(float(once), rel=1e-5)


def test_padding_counts_as_one_token():
    captions = np.array([[[90, 5, 6, 99, 99, 99]], [[90, 5, 6, 7, 8, 99]], [[90, 99, 0, 0, 0, 0]]])
    weights = np.asarray(losses.caption_weights(captions, end=99))
    expected = [[1, 1, 1, 1, 1 / 2, 1 / 2], [1] * 6, [1, 1, *[1 / 4] * 4]]
    np.testing.assert_allclose(weights[:, 0], expected, rtol=1e-6)
    of_t5 = np.array([[5, 9, 1, 0, 0, 0], [5, 6, 7, 8, 9, 1]])  # padding is not the end
    expected = [[1, 1, 1, *[1 / 3] * 3], [1] * 6]
    np.testing.assert_allclose(losses.caption_weights(of_t5, end=1), expected, rtol=1e-6)
    rng = np.random.default_rng(2)
    tokens, condition = rng.normal(size=(2, 3, 1, 6, 4)).astype(np.float32)
    squares = np.square(condition - tokens).sum(-1), np.square(tokens - tokens.mean(0)).sum(-1)
    distance, variance = ((weights * square).sum(-1).mean() for square in squares)
    found = token_loss(condition, tokens, captions=captions)
    assert found == pytest.approx(distance / variance, rel=1e-5)


@pytest.mark.parametrize("rows", [[0, 3, 4], [2], [0, 1, 2, 3, 4]])
def test_only_paired_rows_are_aligned_and_all_are_kept_near(rows):
    rng = np.random.default_rng(4)
    original, aligned = rng.standard_normal((2, 5, 3, 2, 4, 6)).astype(np.float32)
    mask = (rng.random((4, 6)) > 0.3).astype(np.float32)
    paired = np.isin(np.arange(5), rows)
    ours = losses.alignment_loss(original, aligned, mask, paired=paired)
    theirs = alignment_loss(original[rows], aligned[rows], mask)
    assert ours.alignment == pytest.approx(float(theirs.alignment), rel=1e-6)
    whole = alignment_loss(original, aligned, mask)
    assert ours.regularisation == whole.regularisation


def test_without_paired_rows_nothing_is_aligned():
    original, aligned, mask = maps(5, subjects=2)

    def alignment(aligned):
        none = jnp.zeros(len(original), bool)
        return losses.alignment_loss(original, aligned, mask, paired=none).alignment

    assert alignment(aligned) == 0
    assert not np.asarray(jax.grad(alignment)(aligned)).any()
