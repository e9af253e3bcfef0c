"""Ridge regression: the closed form whatever the batches, statistics of the fit, rejections."""

import numpy as np
import pytest

from glfa_jax.errors import InputError
from glfa_jax.ops import ridge
from glfa_jax.ops.ridge import Ridge, rescaled

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 6)) + np.array([3, 0, 0, -5, 0, 0])
Y = X @ RNG.standard_normal((6, 5)) + RNG.standard_normal((40, 5)) + 2


def fit(x: np.ndarray = X, y: np.ndarray = Y, *, alpha=7.0, batch=40):
    sums = Ridge(features=x.shape[1], targets=y.shape[1])
    for start in range(0, len(x), batch):
        sums.add(x[start : start + batch], targets=y[start : start + batch])
    return sums.solve(alpha=alpha)


@pytest.mark.parametrize("alpha", [0.0, 7.0, 500.0])
def test_weights_are_those_of_the_normal_equations(alpha):
    expected = np.linalg.solve(X.T @ X + alpha * np.eye(6), X.T @ Y)
    np.testing.assert_allclose(fit(alpha=alpha).weights, expected, rtol=1e-11, atol=1e-13)


def test_more_features_than_samples_need_only_an_alpha():
    """The dual solution, X'(XX' + alpha)^-1 Y."""
    x, y = X[:4], Y[:4]
    expected = x.T @ np.linalg.solve(x @ x.T + 7 * np.eye(4), y)
    np.testing.assert_allclose(fit(x, y).weights, expected, rtol=1e-11, atol=1e-13)


def test_batches_and_blocks_change_nothing(monkeypatch):
    whole = fit()
    monkeypatch.setattr(ridge, "_BLOCK", 2)
    for ours, theirs in zip(fit(batch=7), whole, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11)


def test_float32_is_summed_in_float64():
    x, y = X.astype(np.float32), Y.astype(np.float32)
    exact = np.linalg.solve(x.T.astype(float) @ x + 7 * np.eye(6), x.T.astype(float) @ y)
    np.testing.assert_allclose(fit(x, y).weights, exact, rtol=1e-11)


def test_statistics_are_those_of_the_samples():
    found = fit()
    predictions = X @ found.weights
    np.testing.assert_allclose(found.features_mean, X.mean(0), rtol=1e-11)
    np.testing.assert_allclose(found.predictions_std, predictions.std(0), rtol=1e-10)
    np.testing.assert_allclose(found.targets_mean, Y.mean(0), rtol=1e-11)
    np.testing.assert_allclose(found.targets_std, Y.std(0), rtol=1e-10)


def test_rescaled_predictions_have_the_mean_and_deviation_of_the_targets():
    found = fit()
    predictions = X @ found.weights
    standard = (predictions - predictions.mean(0)) / predictions.std(0)
    ours = (X - found.features_mean) @ rescaled(found) + found.targets_mean
    np.testing.assert_allclose(ours, standard * Y.std(0) + Y.mean(0), rtol=1e-10)


def test_what_never_varies_is_predicted_as_it_is():
    """A constant target, as the first token of every caption; features that are all the same."""
    y = np.concatenate([Y, np.full((40, 1), 0.1)], axis=1)
    for x in (X, np.full_like(X, 0.3)):
        found = fit(x, y)
        predictions = (x - found.features_mean) @ rescaled(found) + found.targets_mean
        np.testing.assert_allclose(predictions[:, -1], 0.1, rtol=1e-12)
    np.testing.assert_allclose(predictions, np.tile(y.mean(0), (40, 1)), rtol=1e-12)


def test_what_cannot_be_solved_is_one_sentence():
    twins = X[:, [0, 1, 2, 2, 4, 5]]
    with pytest.raises(InputError, match="40 samples do not determine the weights of 6 features"):
        fit(twins, alpha=0)
    fit(twins, alpha=1)
    with pytest.raises(InputError, match="there are no samples"):
        Ridge(features=2, targets=1).solve(alpha=1)


@pytest.mark.parametrize(("name", "value"), [("features", np.nan), ("targets", np.inf)])
def test_the_sample_that_is_not_finite_is_named(name, value):
    x, y = X.copy(), Y.copy()
    (x if name == "features" else y)[33, 1] = value
    with pytest.raises(InputError, match=f"the {name} of sample 33 hold a value that is not"):
        fit(x, y, batch=16)


def test_correlations_are_those_of_the_predictions(monkeypatch):
    y = np.concatenate([Y, np.full((40, 1), 0.1)], axis=1)
    monkeypatch.setattr(ridge, "_BLOCK", 2)
    sums = Ridge(features=6, targets=6)
    sums.add(X, targets=y)
    weights = RNG.standard_normal((6, 6))
    found = sums.correlations(weights)
    expected = [np.corrcoef(X @ weights[:, k], y[:, k])[0, 1] for k in range(5)]
    np.testing.assert_allclose(found[:5], expected, rtol=1e-9)
    assert np.isnan(found[5])  # a constant correlates with nothing


def test_samples_that_come_after_a_solution_count():
    """The decomposition is kept from one penalty to the next, but not beyond more samples."""
    sums = Ridge(features=6, targets=5)
    sums.add(X[:20], targets=Y[:20])
    sums.solve(alpha=1.0)
    sums.add(X[20:], targets=Y[20:])
    np.testing.assert_array_equal(sums.solve(alpha=7.0).weights, fit(batch=20).weights)
