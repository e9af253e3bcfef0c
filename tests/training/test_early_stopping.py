"""Training that ends by itself: what it keeps, and when it ends."""

from itertools import repeat

import jax.numpy as jnp
import numpy as np
import pytest

from glfa_jax.config import Descent
from glfa_jax.errors import TrainingError
from glfa_jax.training.early_stopping import Best, train_to_best
from glfa_jax.training.optim import OTHERWISE, Group

STAGE = {"steps": 100, "batch_size": 1, "learning_rate": 0.1, "weight_decay": 0.0}


def trained(*, measure, patience: int = 3, **stage) -> Best:
    """From (4, 4), by the squared distance from (1, 0)."""
    return train_to_best(
        "toy",
        stage=Descent(**(STAGE | stage)),
        every=5,
        patience=patience,
        init={"x": np.full(2, 4.0, np.float32)},
        frozen=np.float32(1.0),
        groups=(Group(OTHERWISE, 1.0),),
        loss_fn=lambda params, frozen, batch: jnp.square(
            params["x"] - jnp.array([frozen, batch])
        ).sum(),
        batches=repeat(np.float32(0.0)),
        measure=lambda params: measure(np.asarray(params["x"])),
    )


def test_the_lowest_is_kept_though_the_loss_falls_on():
    """Held out, 2.5 would be best; the loss leads past it."""
    found = trained(measure=lambda x: float(abs(x[0] - 2.5)))
    steps, values = zip(*found.curve, strict=True)
    best = int(np.argmin(values))
    assert 0 < steps[best] == found.kept
    assert abs(found.params["x"][0] - 2.5) == pytest.approx(values[best])
    assert found.last == found.kept + 3 * 5 < 100
    assert steps == tuple(range(0, found.last + 1, 5))


def test_what_only_rises_leaves_the_start():
    found = trained(measure=lambda x: float(-x[0]), patience=2)
    assert found.kept == 0
    assert found.last == 10
    np.testing.assert_array_equal(found.params["x"], [4, 4])


def test_what_falls_on_is_trained_to_the_end():
    found = trained(measure=lambda x: float(x[0]), steps=12)
    assert [step for step, _ in found.curve] == [0, 5, 10, 12]
    assert found.kept == found.last == 12


def test_what_is_no_number_is_not_kept():
    found = trained(measure=lambda x: float(x[0]) if x[0] > 3.2 else np.nan)
    assert found.kept == 5
    assert found.last == 10
    assert found.params["x"][0] > 3.2
    with pytest.raises(TrainingError, match="toy: what is to fall is nan before the first step"):
        trained(measure=lambda x: np.nan)
