from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from glfa_jax.metrics.nway import chance, nway_exact, nway_monte_carlo, top_classes

REFERENCE = Path(__file__).parents[1] / "reference" / "nway.npz"


def by_counting(scores, labels, n, top_k):
    """Success over every possible draw, without ties: the definition, word for word."""
    others = [c for c in range(len(scores)) if c not in labels]
    draws = list(combinations(others, n - 1))
    hits = sum(
        any(sum(scores[c] > scores[label] for c in draw) < top_k for label in labels)
        for draw in draws
    )
    return hits / len(draws)


def test_exact_values_lie_within_the_noise_of_the_official_ones():
    """The official rows are (clip, n, top k, share of 4000 successful trials).

    Under the exact probability p a row's successes are binomial(4000, p). A two-sided tail below
    6e-5, |z| > 4, would by chance hit one of the 32 rows once in 500 such files.
    """
    with np.load(REFERENCE) as file:
        probabilities, labels = file["probabilities"], file["ground_truth_classes"]
        rows, trials = file["rows"], int(file["trials"])
    assert len(rows) == 32
    for clip, n, top_k, accuracy in rows:
        exact = nway_exact(probabilities, labels=labels, n=int(n), top_k=int(top_k))[int(clip)]
        successes = round(accuracy * trials)
        tail = min(binom.cdf(successes, trials, exact), binom.sf(successes - 1, trials, exact))
        assert tail > 3e-5, (clip, n, top_k, accuracy, exact)
        # A certain outcome admits no noise at all.
        if exact in (0, 1):
            assert accuracy == exact


@pytest.mark.parametrize(("n", "top_k"), [(2, 1), (4, 1), (4, 2), (5, 4), (7, 3)])
def test_exact_values_equal_counting_every_draw(n, top_k):
    rng = np.random.default_rng(n)
    scores = rng.permuted(np.tile(np.arange(9.0), (20, 1)), axis=1)
    labels = rng.permuted(np.tile(np.arange(9), (20, 1)), axis=1)[:, :3]
    expected = [by_counting(s, set(c), n, top_k) for s, c in zip(scores, labels, strict=True)]
    np.testing.assert_allclose(
        nway_exact(scores, labels=labels, n=n, top_k=top_k), expected, atol=1e-12
    )


def test_ties_count_as_the_average_over_every_way_to_break_them():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 3, (12, 9)).astype(float)
    labels = np.tile([0, 1, 2], (12, 1))
    exact = nway_exact(scores, labels=labels, n=4, top_k=2)
    broken = np.mean(
        [
            nway_exact(scores + 1e-6 * rng.random(scores.shape), labels=labels, n=4, top_k=2)
            for _ in range(3000)
        ],
        axis=0,
    )
    # Standard error of a mean of 3000 numbers in [0, 1] is below 0.01.
    np.testing.assert_allclose(exact, broken, atol=0.04)
    pessimistic = nway_exact(scores - 1e-6 * (np.arange(9) < 3), labels=labels, n=4, top_k=2)
    optimistic = nway_exact(scores + 1e-6 * (np.arange(9) < 3), labels=labels, n=4, top_k=2)
    assert (pessimistic <= exact).all()
    assert (exact <= optimistic).all()
    assert (pessimistic < exact - 0.05).any()


def test_many_labels_that_all_tie_earn_what_counting_gives():
    # The best of 1000 random numbers outranks 49 others unless the first of all 1049 is theirs.
    assert chance(3000, labels=1000, n=50) == pytest.approx(1000 / 1049)


def test_top_classes_of_whole_numbers_without_sign():
    scores = np.array([[0, 3, 5, 1]], np.uint8)
    np.testing.assert_array_equal(top_classes(scores, count=3), [[2, 1, 3]])


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("n", "top_k"), [(2, 1), (10, 1), (10, 3)])
def test_trials_agree_with_the_exact_value(tied, n, top_k):
    rng = np.random.default_rng(1)
    scores = rng.random((10, 40))
    scores = np.round(scores, 1) if tied else scores
    labels = top_classes(scores + rng.normal(0, 0.3, scores.shape))
    exact = nway_exact(scores, labels=labels, n=n, top_k=top_k)
    trials = 4000
    share = nway_monte_carlo(scores, labels=labels, n=n, top_k=top_k, trials=trials, seed=2)
    deviation = np.sqrt(exact * (1 - exact) / trials)
    np.testing.assert_array_less(np.abs(share - exact), 4 * deviation + 1e-12)


def test_trials_repeat_with_their_seed_and_differ_without():
    rng = np.random.default_rng(3)
    scores, labels = rng.random((6, 30)), np.tile([4, 5, 6], (6, 1))
    first, again, other = (
        nway_monte_carlo(scores, labels=labels, n=2, trials=100, seed=seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_random_scores_earn_chance():
    scores = np.random.default_rng(4).random((4000, 50))
    labels = np.tile([0, 1, 2], (4000, 1))
    for n in (2, 10, 48):
        earned = nway_exact(scores, labels=labels, n=n)
        error = 4 * earned.std() / np.sqrt(len(earned))
        assert earned.mean() == pytest.approx(chance(50, n=n), abs=error)
    assert chance(50, n=2) == pytest.approx(3 / 4)
    assert chance(400, labels=1, n=50) == pytest.approx(1 / 50)
    assert chance(400, labels=1, n=50, top_k=5) == pytest.approx(5 / 50)


def test_a_perfect_prediction_always_succeeds_and_the_reverse_never_when_all_are_drawn():
    scores = np.random.default_rng(5).random((5, 20))
    labels = top_classes(scores)
    np.testing.assert_array_equal(nway_exact(scores, labels=labels, n=18), 1)
    np.testing.assert_array_equal(nway_exact(-scores, labels=labels, n=18), 0)


def test_top_classes_are_the_highest_in_order():
    scores = np.array([[0.1, 0.4, 0.2, 0.3], [0.25, 0.25, 0.25, 0.25]])
    np.testing.assert_array_equal(top_classes(scores), [[1, 3, 2], [0, 1, 2]])


SCORES = np.random.default_rng(6).random((2, 10))
LABELS = np.array([[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 9}, "must lie in 2 to 8: 10 classes less 3 labels leave 7"),
        ({"n": 1}, "must lie in 2 to 8"),
        ({"n": 3, "top_k": 3}, "top_k = 3 must lie in 1 to n - 1 = 2"),
        ({"n": 3, "top_k": 0}, "top_k = 0"),
        ({"labels": LABELS + 5}, "from 0 to 9"),
        ({"labels": LABELS[:1]}, "labels have shape"),
        ({"labels": np.array([[0, 0, 1], [1, 2, 3]])}, "same class twice"),
        ({"labels": LABELS.astype(float)}, "class indices"),
    ],
)
def test_what_has_no_meaning_is_rejected(change, message):
    with pytest.raises(ValueError, match=message):
        nway_exact(SCORES, **{"labels": LABELS, "n": 8} | change)
    with pytest.raises(ValueError, match=message):
        nway_monte_carlo(SCORES, **{"labels": LABELS, "n": 8, "trials": 5, "seed": 0} | change)


def test_scores_that_are_no_numbers_are_rejected():
    scores = SCORES.copy()
    scores[0, 0] = np.nan
    with pytest.raises(ValueError, match="not all are finite"):
        nway_exact(scores, labels=LABELS, n=2)
    with pytest.raises(ValueError, match="at least one clip"):
        nway_exact(SCORES[:0], labels=LABELS[:0], n=2)
