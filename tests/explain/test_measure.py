"""An encoder that reads some pixels only: both maps find exactly those, and the test tells."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from glfa_jax.explain import faithful, measure
from glfa_jax.explain.areas import Areas
from glfa_jax.explain.scores import Noised, Scoring, beyond_mean, noised
from glfa_jax.models.conditioning import unit

CLIPS, WINDOW, SIDE, WIDTH = 24, 2, 12, 5
AREAS = Areas(
    tuple(map(str, range(16))), np.arange(SIDE)[:, None] // 3 * 4 + np.arange(SIDE) // 3, "squares"
)
READ = (3, 6, 9)  # areas
STEPS = 8


class Encoded(NamedTuple):
    condition: Any
    embedding: Any


class Reader(nn.Module):
    """Sees the pixels of the areas `READ` alone."""

    @nn.compact
    def __call__(self, fmri):
        seen = fmri[..., np.isin(AREAS.number, READ)]
        tokens = jnp.tanh(nn.Dense(WIDTH, name="tokens")(0.3 * seen))  # (b, w, d)
        return Encoded(tokens, unit(nn.Dense(WIDTH, name="embedding")(tokens.sum(-2))))


@pytest.fixture(scope="module")
def case():
    """The score of both kinds, what it is given, maps and their average."""
    rng = np.random.default_rng(0)
    maps = rng.standard_normal((CLIPS, WINDOW, SIDE, SIDE), np.float32)
    average = 0.1 * rng.standard_normal((WINDOW, SIDE, SIDE), np.float32)
    sizes = {"tokens": np.isin(AREAS.number, READ).sum(), "embedding": WIDTH}
    params = {
        name: {
            "kernel": rng.standard_normal((size, WIDTH), np.float32) / np.sqrt(size),
            "bias": 0.1 * rng.standard_normal(WIDTH).astype(np.float32),
        }
        for name, size in sizes.items()
    }
    module = Reader()
    own: Any = module.apply({"params": params}, maps)
    scoring = Scoring(module, ("condition", "image"))
    given = scoring.given(
        {"params": params},
        maps,
        average=average,
        towards={"image": beyond_mean(np.asarray(own.embedding))},
    )
    return scoring, given, maps, average


@pytest.fixture(scope="module")
def found(case):
    scoring, given, maps, average = case
    slopes = measure.slopes(scoring, given, maps, average=average)
    lost = measure.by_area(scoring, given, maps, average=average, areas=AREAS.number)
    return slopes, lost


def test_both_maps_find_exactly_the_pixels_that_are_read(found):
    slopes, lost = found
    read = np.isin(AREAS.number, READ)
    assert (slopes.gradient[..., read] != 0).all()
    assert not slopes.gradient[..., ~read].any()
    assert (lost[..., list(READ)] != 0).all()
    assert not np.delete(lost, READ, axis=-1).any()


def test_scores_are_1_of_the_whole_condition_and_0_of_the_average(case, found):
    scoring, given, maps, average = case
    np.testing.assert_allclose(found[0].full[:, 0], 1, rtol=1e-5)
    everything = np.ones((SIDE, SIDE), bool)
    none = measure.replaced(scoring, given, maps, average=average, gone=everything)
    np.testing.assert_allclose(none[:, 0], 0, atol=1e-6)
    # Of an embedding that no longer depends on the clip, over all clips.
    np.testing.assert_allclose(none[:, 1].mean(), 0, atol=1e-6)
    assert found[0].full[:, 1].mean() > 0.1


def test_the_gradient_is_what_replacing_a_pixel_costs_to_first_order(case):
    """Exactly, of a linear score; the average is what the input is measured from."""
    _, _, maps, average = case
    weight = np.random.default_rng(1).standard_normal((WINDOW, SIDE, SIDE)).astype(np.float32)

    def linear(given, maps):
        return jnp.stack([(maps * given).sum((1, 2, 3)), 3 - (maps * given).sum((1, 2, 3))], -1)

    slopes = measure.slopes(linear, weight, maps, average=average)
    lost = measure.by_area(linear, weight, maps, average=average, areas=AREAS.number)
    wanted = ((maps - average) * weight).sum(1)
    np.testing.assert_allclose(slopes.gradient[:, 0], wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(slopes.gradient[:, 1], -wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(AREAS.sums(slopes.gradient), lost, rtol=1e-3, atol=1e-4)


def test_replacing_is_of_each_clip_its_own(case):
    scoring, given, maps, average = case
    gone = np.stack([AREAS.number == READ[i % 3] for i in range(CLIPS)])
    each = measure.replaced(scoring, given, maps, average=average, gone=gone)
    for i in range(3):
        all_alike = measure.replaced(scoring, given, maps, average=average, gone=gone[i])
        np.testing.assert_allclose(each[i::3], all_alike[i::3], rtol=1e-5, atol=1e-6)


def judged(case, contributions: np.ndarray, *, name: int) -> faithful.Verdict:
    """The test by deletion of a map (areas) of a score."""
    scoring, given, maps, average = case
    order = faithful.order_of(contributions, pixels=AREAS.pixels)
    where: Any = {"average": average, "areas": AREAS.number}
    ends = measure.ends(scoring, given, maps, **where)

    def under(order: np.ndarray) -> np.ndarray:
        orders = np.tile(order, (CLIPS, 1))
        curves = measure.deleted(
            *(scoring, given, maps), **where, orders=orders, steps=STEPS, between=ends
        )
        assert curves.shape == (CLIPS, 2, STEPS + 1)
        shares = faithful.shares_of(orders, pixels=AREAS.pixels, steps=STEPS)
        return faithful.area_under(curves[:, name], shares=shares)

    random = [under(one) for one in faithful.random_orders(16, count=19, seed=0)]
    return faithful.verdict(
        under(order), lowest=under(order[::-1]), random=np.stack(random, axis=1)
    )


@pytest.mark.parametrize("name", [0, 1])
def test_true_maps_pass_the_test_and_wrong_ones_do_not(case, found, name):
    slopes, lost = found
    for true in (AREAS.sums(slopes.gradient)[:, name].mean(0), lost[:, name].mean(0)):
        passed = judged(case, true, name=name)
        assert passed.kept
        assert passed.highest < 0.7 * passed.random < passed.lowest
        assert passed.p_value == pytest.approx(1 / 20)
    assert not judged(case, -true, name=name).kept
    elsewhere = np.roll(lost[:, name].mean(0), 4)  # a row of areas below
    assert not judged(case, elsewhere, name=name).kept


# --- the generator's own loss ---------------------------------------------------------------------


class Lines:
    """A generator whose best denoiser is told the clip by the condition."""

    def draw(self, encoding, key):
        return encoding

    def noise(self, key, clean):
        return jnp.ones_like(clean)

    def times(self, key, clips):
        return jnp.full(clips, 2)

    def add_noise(self, clean, *, noise, t):
        return clean + t[:, None] * noise

    def target(self, clean, *, noise, t):
        return clean

    def denoise(self, denoiser, latents, t, condition):
        return denoiser * condition.sum(1)


def test_video_is_how_much_better_than_by_the_average_a_clip_is_denoised(case):
    _, given, maps, average = case
    generator: Any = Lines()
    scoring = Scoring(Reader(), ("video",), generator)
    variables = given["encoder"]
    encoded: Any = [Reader().apply(variables, x) for x in (maps, average[None])]
    clean, alone = (np.asarray(one.condition.sum(1)) for one in encoded)
    video = noised(
        generator, jnp.float32(1), jnp.asarray(clean), clip=np.arange(CLIPS), seed=0, draws=3
    )
    assert isinstance(video, Noised)
    assert video.noisy.shape == (CLIPS, 3, WIDTH)
    np.testing.assert_allclose(video.noisy, clean[:, None] + np.full((1, 3, 1), 2), rtol=1e-5)
    own = scoring.given(variables, maps, average=average, video=video)
    slopes = measure.slopes(scoring, own, maps, average=average)
    # The condition of the true clip denoises it perfectly.
    wanted = np.square(clean - alone).mean(-1)
    np.testing.assert_allclose(slopes.full[:, 0], wanted, rtol=1e-4)
    lost = measure.by_area(scoring, own, maps, average=average, areas=AREAS.number)
    assert not np.delete(lost, READ, axis=-1).any()
    assert (lost[..., list(READ)] > 0).all()
