"""Summaries and significance of per-clip values. All tests are two-sided unless they say so."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

Values = Float[np.ndarray, " n"]
EXACT_SIGN_FLIPS = 20  # values; 2**20 sign patterns are enumerated in about a second
_ROUNDING = 1e-12  # of the largest value: what is less is no difference but how computers round


@dataclass(frozen=True)
class Summary:
    """`std` is that of the sample (ddof 1) and, like the standard error, nan for one value."""

    count: int
    mean: float
    std: float
    standard_error: float


@dataclass(frozen=True)
class Result:
    """`estimate`: the mean, or difference of means, under test. `degrees_of_freedom`: of a t."""

    method: str
    estimate: float
    statistic: float
    p_value: float
    degrees_of_freedom: float | None = None


@dataclass(frozen=True)
class Interval:
    estimate: float
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class Corrected:
    """`rejected[i]`: hypothesis i falls, the error rate held at the level for all together."""

    p_values: Float[np.ndarray, " n"]
    rejected: Bool[np.ndarray, " n"]


def summarise(values: Values) -> Summary:
    """Mean and spread."""
    values = _checked(values, least=1)
    count = len(values)
    std = float(values.std(ddof=1)) if count > 1 else math.nan
    return Summary(count, float(values.mean()), std, std / math.sqrt(count))


def t_test(values: Values, *, chance: float) -> Result:
    """One-sample t-test of the mean against `chance`."""
    values = _checked(values, least=2)
    return _t(
        "one-sample t-test",
        values.mean() - chance,
        _variance_of_mean(values),
        len(values) - 1,
        rounding=_rounding(values, np.array([chance])),
    )


def paired_t_test(first: Values, *, second: Values) -> Result:
    """t-test of first − second over clips that both have, in the same order."""
    difference = _difference(first, second)
    return _t(
        "paired t-test",
        difference.mean(),
        _variance_of_mean(difference),
        len(difference) - 1,
        rounding=_rounding(first, second),
    )


def two_sample_t_test(first: Values, *, second: Values, equal_variance: bool) -> Result:
    """t-test of mean(first) − mean(second): Student's with `equal_variance`, else Welch's."""
    first, second = _checked(first, least=2), _checked(second, least=2)
    n, m = len(first), len(second)
    difference, rounding = first.mean() - second.mean(), _rounding(first, second)
    if equal_variance:
        pooled = ((n - 1) * first.var(ddof=1) + (m - 1) * second.var(ddof=1)) / (n + m - 2)
        variance = pooled * (1 / n + 1 / m)
        return _t("two-sample t-test", difference, variance, n + m - 2, rounding=rounding)
    a, b = _variance_of_mean(first), _variance_of_mean(second)
    # Welch-Satterthwaite; without any variance the count is as good as any.
    df = (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (m - 1)) if a + b > 0 else n + m - 2
    return _t("Welch's t-test", difference, a + b, df, rounding=rounding)


def sign_test(values: Values, *, chance: float) -> Result:
    """Exact binomial test that values above and below `chance` are equally frequent.

    Assumes nothing of their distribution. Values equal to `chance` are left out, as is usual; the
    statistic is the number above.
    """
    values = _checked(values, least=1)
    difference, rounding = values - chance, _rounding(values, np.array([chance]))
    above, count = int((difference > rounding).sum()), int((abs(difference) > rounding).sum())
    p_value = stats.binomtest(above, count).pvalue if count else 1.0
    return Result("sign test", float(difference.mean()), float(above), float(p_value))


def sign_flip_test(values: Values, *, chance: float) -> Result:
    """Exact permutation test of the mean against `chance`, for few values.

    If `chance` is the centre of a symmetric distribution, every difference is as likely with either
    sign: the p-value is the share of the 2^n sign patterns whose mean is at least as far off.
    """
    difference = _checked(values, least=1) - chance
    count = len(difference)
    if count > EXACT_SIGN_FLIPS:
        raise ValueError(
            f"sign-flip test: {count} values are more than the {EXACT_SIGN_FLIPS} it enumerates; "
            "use t_test or sign_test"
        )
    sums = np.zeros(1)
    for value in difference:
        sums = np.concatenate([sums + value, sums - value])
    observed = abs(difference.sum())
    # Patterns that equal the observed one but for rounding count as equal.
    far = np.abs(sums) >= observed - 1e-9 * max(np.abs(difference).sum(), 1e-300)
    mean = float(difference.mean())
    return Result("sign-flip permutation test", mean, mean, float(far.mean()))


def bootstrap_interval(
    values: Values, *, seed: int, resamples: int = 10_000, level: float = 0.95
) -> Interval:
    """Percentile bootstrap interval of the mean over clips; for a paired comparison, give it the
    differences."""
    values = _checked(values, least=2)
    if resamples < 100 or not 0 < level < 1:
        raise ValueError(
            f"bootstrap: needs at least 100 resamples and a level between 0 and 1, got {resamples} "
            f"and {level}"
        )
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    block = max(1, 2**22 // len(values))  # bounds memory
    for start in range(0, resamples, block):
        stop = min(start + block, resamples)
        means[start:stop] = rng.choice(values, (stop - start, len(values))).mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high), level)


def cohens_d(first: Values, *, second: Values) -> float:
    """Cohen's d of the paired differences (d_z): mean of first − second over its deviation.

    0 for two copies; infinite for a difference that never varies.
    """
    difference = _difference(first, second)
    variance = float(difference.var(ddof=1))
    return _ratio(float(difference.mean()), variance, rounding=_rounding(first, second))


def holm(p_values: Values, *, level: float = 0.05) -> Corrected:
    """Holm's step-down correction for several tests; order is kept."""
    p_values = _checked(p_values, least=1)
    if p_values.min() < 0 or p_values.max() > 1:
        raise ValueError("p-values: must lie between 0 and 1")
    count = len(p_values)
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * (count - np.arange(count)))
    adjusted = np.empty(count)
    adjusted[order] = np.minimum(stepped, 1)
    return Corrected(adjusted, adjusted <= level)


def _t(method: str, difference: float, variance: float, df: float, *, rounding: float) -> Result:
    """A t-test from an estimate and the variance of that estimate."""
    statistic = _ratio(difference, variance, rounding=rounding)
    p_value = float(2 * stats.t.sf(abs(statistic), df))
    return Result(method, float(difference), statistic, p_value, float(df))


def _ratio(difference: float, variance: float, *, rounding: float) -> float:
    """A difference over its deviation; what does not vary differs certainly or not at all."""
    if math.sqrt(variance) > rounding:
        return float(difference / math.sqrt(variance))
    return math.copysign(math.inf, difference) if abs(difference) > rounding else 0.0


def _rounding(first: np.ndarray, second: np.ndarray) -> float:
    """What values of this size may differ by and be the same."""
    return _ROUNDING * max(float(np.abs(first).max()), float(np.abs(second).max()))


def _variance_of_mean(values: np.ndarray) -> float:
    return float(values.var(ddof=1) / len(values))


def _difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    first, second = _checked(first, least=2), _checked(second, least=2)
    if len(first) != len(second):
        raise ValueError(f"paired values: {len(first)} and {len(second)} must be equally many")
    return first - second


def _checked(values: np.ndarray, *, least: int) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or len(values) < least:
        raise ValueError(f"values: shape {values.shape} must be one axis of at least {least}")
    if not np.isfinite(values).all():
        raise ValueError(f"values: {int((~np.isfinite(values)).sum())} of {len(values)} not finite")
    return values
