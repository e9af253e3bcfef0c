import numpy as np
import pytest
from scipy.linalg import sqrtm

from glfa_jax.metrics.frechet import frechet_distance

RNG = np.random.default_rng(0)


def sample(count: int, *, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Features with exactly this mean and sample covariance."""
    x = RNG.normal(size=(count, len(mean)))
    x -= x.mean(axis=0)
    white = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
    return mean + white @ np.linalg.cholesky(covariance).T


def by_square_root(a: np.ndarray, b: np.ndarray) -> float:
    first, second = np.cov(a.T), np.cov(b.T)
    root = np.real(np.asarray(sqrtm(first @ second)))
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root)


def test_gaussians_with_covariances_that_commute_have_a_closed_form():
    mean1, mean2 = np.array([0.0, 1, 2]), np.array([3.0, 1, -1])
    std1, std2 = np.array([1.0, 2, 0.1]), np.array([4.0, 0.5, 0.2])
    turn = np.linalg.qr(RNG.normal(size=(3, 3)))[0]
    a, b = (
        sample(n, mean=turn @ mean, covariance=turn @ np.diag(std**2) @ turn.T)
        for n, mean, std in ((50, mean1, std1), (80, mean2, std2))
    )
    expected = ((mean1 - mean2) ** 2).sum() + ((std1 - std2) ** 2).sum()
    assert frechet_distance(a, truth=b) == pytest.approx(expected, rel=1e-10)


def test_gaussians_whose_covariances_do_not_commute():
    """In two dimensions tr C^½ = (tr C + 2 det(C)^½)^½."""
    cov1, cov2 = np.array([[2.0, 1.2], [1.2, 1.0]]), np.array([[1.0, -0.6], [-0.6, 3.0]])
    a, b = (sample(20, mean=np.zeros(2), covariance=c) for c in (cov1, cov2))
    product = cov1 @ cov2
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    expected = np.trace(cov1 + cov2) - 2 * root
    assert frechet_distance(a, truth=b) == pytest.approx(expected, rel=1e-10)


def test_it_equals_the_matrix_square_root_where_that_is_sound():
    a = RNG.normal(size=(200, 12)) @ RNG.normal(size=(12, 12))
    b = RNG.normal(0.5, 1, (150, 12)) @ RNG.normal(size=(12, 12))
    assert frechet_distance(a, truth=b) == pytest.approx(by_square_root(a, b), rel=1e-9)
    assert frechet_distance(a, truth=b) == pytest.approx(frechet_distance(b, truth=a), rel=1e-12)


def test_identical_sets_are_at_no_distance_even_with_fewer_samples_than_values():
    few = RNG.normal(size=(6, 40)).astype(np.float32)
    assert 0 <= frechet_distance(few, truth=few) < 1e-12
    # Where one set lies across the other nothing overlaps: the variances add up.
    a, b = np.zeros((2, 6, 40))
    a[:, :20], b[:, 20:] = RNG.normal(size=(2, 6, 20))
    a, b = a - a.mean(0), b - b.mean(0)
    expected = a.var(0, ddof=1).sum() + b.var(0, ddof=1).sum()
    assert frechet_distance(a, truth=b) == pytest.approx(expected, rel=1e-12)


def test_large_means_do_not_drown_it():
    a, b = RNG.normal(size=(2, 50, 4))
    moved = frechet_distance(a + 1e6, truth=b + 1e6)
    assert moved == pytest.approx(frechet_distance(a, truth=b), rel=1e-6)


FEATURES = RNG.normal(size=(5, 3))


@pytest.mark.parametrize(
    ("generated", "truth", "message"),
    [
        (FEATURES[:1], FEATURES, "1 generated sample has no covariance; at least 2"),
        (FEATURES, FEATURES[:0], "0 true sample has no covariance; at least 2"),
        (FEATURES[:, :2], FEATURES, "of 2 values and true ones of 3"),
        (FEATURES[0], FEATURES, "must be .samples, values"),
        (FEATURES, FEATURES * np.inf, "not all true features are finite"),
    ],
)
def test_what_has_no_distance_is_rejected(generated, truth, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(generated, truth=truth)
