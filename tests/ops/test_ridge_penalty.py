"""The penalty that is chosen predicts other samples about as well as the best there is."""

import numpy as np
import pytest

from glfa_jax.errors import InputError
from glfa_jax.ops import ridge_penalty
from glfa_jax.ops.ridge import Ridge
from glfa_jax.ops.ridge_penalty import SHARES, Choice, Halves, alpha_of

FEATURES, TARGETS, SAMPLES = 30, 40, 160


def sums(x: np.ndarray, y: np.ndarray) -> Ridge:
    found = Ridge(features=x.shape[1], targets=y.shape[1])
    found.add(x, targets=y)
    return found


def samples(noise: float, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Weights are of variance 1: the best alpha, that of their posterior mean, is noise²."""
    rng = np.random.default_rng(seed)
    weights = np.random.default_rng(99).standard_normal((FEATURES, TARGETS))
    x = rng.standard_normal((SAMPLES, FEATURES))
    return x, x @ weights + noise * rng.standard_normal((SAMPLES, TARGETS))


def choose(x: np.ndarray, y: np.ndarray, *, batch: int = SAMPLES) -> Choice:
    """Every other sample belongs to the second half."""
    halves = Halves(features=x.shape[1], targets=y.shape[1])
    second = np.arange(len(x)) % 2 == 1
    for start in range(0, len(x), batch):
        part = slice(start, start + batch)
        halves.add(x[part], targets=y[part], second=second[part])
    return halves.choose()


@pytest.mark.parametrize("noise", [2.0, 6.0, 20.0])
def test_the_chosen_penalty_is_near_the_known_best(noise):
    x, y = samples(noise)
    choice, half = choose(x, y), sums(x[0::2], y[0::2])
    best = noise**2 / (half.mean_square * half.count)
    assert best / 4 <= choice.share <= best * 4
    more = sums(*samples(noise, seed=1))

    def predicted(share: float) -> float:
        whole = sums(x, y)
        return float(more.correlations(whole.solve(alpha=alpha_of(share, whole)).weights).mean())

    assert predicted(choice.share) >= max(map(predicted, SHARES)) - 0.01


def test_it_tells_the_correlations_that_it_went_by():
    x, y = samples(6.0)
    choice = choose(x, y)
    assert tuple(choice.correlations) == SHARES
    assert choice.correlations[choice.share] == max(choice.correlations.values())
    expected = []
    for k in (0, 1):
        fitted = sums(x[k::2], y[k::2])
        predictions = x[1 - k :: 2] @ fitted.solve(alpha=alpha_of(0.01, fitted)).weights
        expected += [np.corrcoef(predictions[:, i], y[1 - k :: 2, i])[0, 1] for i in range(TARGETS)]
    np.testing.assert_allclose(choice.correlations[0.01], np.mean(expected), rtol=1e-9)


def test_neither_batches_nor_the_unit_nor_constant_targets_change_the_choice():
    x, y = samples(6.0)
    choice = choose(x, y)
    assert choose(x, y) == choice
    others = [choose(x, y, batch=7), choose(1000 * x, y)]
    others.append(choose(x, np.concatenate([y, np.full((SAMPLES, 1), 0.1)], axis=1)))
    for other in others:
        assert other.share == choice.share
        np.testing.assert_allclose(
            list(other.correlations.values()), list(choice.correlations.values()), rtol=1e-6
        )


def test_of_many_targets_some_are_looked_at(monkeypatch):
    x, y = samples(6.0)
    monkeypatch.setattr(ridge_penalty, "MOST_TARGETS", 3)
    assert choose(x, y) == choose(x, y[:, [0, 20, 39]])


def test_where_nothing_can_be_chosen_is_one_sentence():
    x, y = samples(1.0)
    with pytest.raises(InputError, match=r"nothing varies in one half .*\(80 and 80\); give alpha"):
        choose(x, np.ones((SAMPLES, TARGETS)))
    halves = Halves(features=FEATURES, targets=TARGETS)
    halves.add(x, targets=y, second=np.zeros(SAMPLES, bool))
    with pytest.raises(InputError, match="there are no samples"):
        halves.choose()
