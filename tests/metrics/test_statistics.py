import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from glfa_jax.metrics.statistics import (
    bootstrap_interval,
    cohens_d,
    holm,
    paired_t_test,
    sign_flip_test,
    sign_test,
    summarise,
    t_test,
    two_sample_t_test,
)

RNG = np.random.default_rng(0)
FIRST = RNG.normal(0.6, 0.2, 15)
SECOND = FIRST + RNG.normal(0.05, 0.1, 15)
OTHER = RNG.normal(0.5, 0.4, 22)


def same(ours, theirs):
    assert ours.statistic == pytest.approx(theirs.statistic, rel=1e-10)
    assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-8)
    assert ours.degrees_of_freedom == pytest.approx(theirs.df, rel=1e-10)


def test_t_tests_equal_scipy():
    same(t_test(FIRST, chance=0.5), stats.ttest_1samp(FIRST, 0.5))
    same(paired_t_test(FIRST, second=SECOND), stats.ttest_rel(FIRST, SECOND))
    for equal in (True, False):
        ours = two_sample_t_test(FIRST, second=OTHER, equal_variance=equal)
        same(ours, stats.ttest_ind(FIRST, OTHER, equal_var=equal))


def test_estimates_are_the_differences_under_test():
    assert t_test(FIRST, chance=0.5).estimate == pytest.approx(FIRST.mean() - 0.5)
    difference = FIRST.mean() - SECOND.mean()
    assert paired_t_test(FIRST, second=SECOND).estimate == pytest.approx(difference)


def test_pairing_sees_what_two_samples_hide():
    paired = paired_t_test(FIRST, second=FIRST + 0.02 + 0.001 * RNG.normal(size=15))
    assert paired.p_value < 1e-6
    assert two_sample_t_test(FIRST, second=FIRST + 0.02, equal_variance=True).p_value > 0.5


def test_values_that_do_not_vary_differ_certainly_or_not_at_all():
    assert t_test(np.ones(4), chance=0.5).p_value == 0
    assert t_test(np.ones(4), chance=0.5).statistic == math.inf
    assert t_test(np.ones(4), chance=1.0).p_value == 1
    assert two_sample_t_test(np.ones(3), second=np.ones(4), equal_variance=False).p_value == 1


@pytest.mark.parametrize("value", [0.1, 0.0577, 1 / 3, 7.3])
@pytest.mark.parametrize("count", [2, 7, 12, 80])
def test_rounding_is_no_difference(value, count):
    # What is alike on paper is not so in the last digit of its mean.
    values = np.full(count, value)
    nearly = values * (1 + 1e-15 * (-1.0) ** np.arange(count))
    assert t_test(nearly, chance=value).p_value == 1
    assert paired_t_test(values, second=nearly).p_value == 1
    assert two_sample_t_test(values, second=nearly, equal_variance=True).p_value == 1
    assert two_sample_t_test(values, second=nearly, equal_variance=False).p_value == 1
    assert sign_test(nearly, chance=value).p_value == 1
    assert cohens_d(values, second=nearly) == 0
    shifted = RNG.random(count)
    assert cohens_d(shifted + value, second=shifted) == math.inf
    assert t_test(nearly, chance=value * 1.001).statistic == -math.inf


def test_small_numbers_are_no_rounding():
    assert t_test(FIRST * 1e-9, chance=0.5e-9).p_value == pytest.approx(
        t_test(FIRST, chance=0.5).p_value
    )


def test_summary_by_hand():
    summary = summarise(np.array([1.0, 2.0, 3.0, 6.0]))
    assert summary.count == 4
    assert summary.mean == 3
    assert summary.std == pytest.approx(math.sqrt(14 / 3))
    assert summary.standard_error == pytest.approx(math.sqrt(14 / 3) / 2)
    assert math.isnan(summarise(np.array([1.0])).std)


def test_sign_test_by_hand():
    # 5 above, 1 below, 1 equal: 2 (1 + 6) / 2^6
    result = sign_test(np.array([0.6, 0.7, 0.8, 0.9, 0.55, 0.1, 0.5]), chance=0.5)
    assert result.p_value == pytest.approx(14 / 64)
    assert result.statistic == 5
    assert sign_test(np.array([0.5, 0.5]), chance=0.5).p_value == 1


def test_sign_flip_test_by_hand_and_by_enumeration():
    # All five on one side: only the pattern itself and its mirror are as far off.
    assert sign_flip_test(np.arange(1.0, 6), chance=0.0).p_value == 2 / 32
    assert sign_flip_test(np.array([0.5, 0.5]), chance=0.5).p_value == 1
    values = RNG.normal(0.2, 1, 9)
    far = [abs(values @ signs) >= abs(values.sum()) - 1e-12 for signs in product((1, -1), repeat=9)]
    assert sign_flip_test(values, chance=0.0).p_value == pytest.approx(np.mean(far), abs=1e-12)
    theirs = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip_test(values, chance=0.0).p_value == pytest.approx(theirs.pvalue)
    with pytest.raises(ValueError, match="t_test"):
        sign_flip_test(np.ones(21), chance=0.0)


def test_bootstrap_equals_scipy_up_to_its_own_noise():
    ours = bootstrap_interval(FIRST, seed=1, resamples=20_000)
    theirs = stats.bootstrap(
        (FIRST,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(2)
    ).confidence_interval
    error = FIRST.std() / np.sqrt(15) * 0.05
    assert ours.low == pytest.approx(theirs.low, abs=error)
    assert ours.high == pytest.approx(theirs.high, abs=error)
    assert ours.estimate == FIRST.mean()
    assert ours.low < ours.estimate < ours.high


def test_bootstrap_repeats_with_its_seed_and_widens_with_its_level():
    first, again, other = (bootstrap_interval(FIRST, seed=s, resamples=500) for s in (1, 1, 2))
    assert first == again != other
    wide = bootstrap_interval(FIRST, seed=1, resamples=500, level=0.99)
    assert wide.low < first.low < first.high < wide.high


def test_bootstrap_covers_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(5)
    intervals = [
        bootstrap_interval(rng.normal(0.3, 1, 60), seed=s, resamples=400) for s in range(400)
    ]
    covered = np.mean([i.low <= 0.3 <= i.high for i in intervals])
    # Standard error 0.011; the percentile bootstrap falls about 0.01 short at 60 values.
    assert 0.90 < covered < 0.985


def test_holm_by_hand():
    corrected = holm(np.array([0.01, 0.04, 0.03, 0.005]), level=0.05)
    np.testing.assert_allclose(corrected.p_values, [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_array_equal(corrected.rejected, [True, False, False, True])
    np.testing.assert_allclose(holm(np.array([0.7, 0.9])).p_values, [1, 1])
    np.testing.assert_allclose(holm(np.array([0.02])).p_values, [0.02])


def test_cohens_d_of_paired_differences_by_hand():
    # Differences 1, 2, 3: mean 2, deviation 1.
    assert cohens_d(np.array([2.0, 4.0, 6.0]), second=np.array([1.0, 2.0, 3.0])) == 2
    paired = paired_t_test(FIRST, second=SECOND)
    assert cohens_d(FIRST, second=SECOND) == pytest.approx(paired.statistic / math.sqrt(15))
    assert cohens_d(FIRST, second=FIRST) == 0
    assert cohens_d(np.zeros(3), second=np.ones(3)) == -math.inf


def test_what_is_no_sample_is_rejected():
    with pytest.raises(ValueError, match="1 of 3 not finite"):
        summarise(np.array([1.0, np.nan, 2.0]))
    with pytest.raises(ValueError, match="at least 2"):
        t_test(np.array([1.0]), chance=0.5)
    with pytest.raises(ValueError, match="one axis"):
        summarise(np.ones((2, 2)))
    with pytest.raises(ValueError, match="3 and 4 must be equally many"):
        paired_t_test(np.arange(3.0), second=np.arange(4.0))
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm(np.array([0.2, 1.2]))
    with pytest.raises(ValueError, match="resamples"):
        bootstrap_interval(FIRST, seed=0, resamples=10)
