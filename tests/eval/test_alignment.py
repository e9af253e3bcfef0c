"""How alike subjects are, and could be."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from eval.alignment import ceiling, inter_subject_correlation
from glfa_jax.data.assembling import Agreement

SIDE, VOLUMES = 24, 400


def scanned(signal: np.ndarray, *, noise: float, rng: np.random.Generator) -> tuple:
    """The average of two repeats, and their agreement as a store keeps it."""
    first, second = (signal + noise * rng.standard_normal(signal.shape) for _ in range(2))
    agreement = Agreement(signal[0].size)
    agreement.add(first.reshape(VOLUMES, -1), second.reshape(VOLUMES, -1))
    return (first + second) / 2, agreement.correlation().reshape(SIDE, SIDE)


@pytest.fixture(scope="module")
def brains() -> tuple[np.ndarray, Any]:
    """Maps of two brains with the same signal, scanned with different noise, and their store."""
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((VOLUMES, SIDE, SIDE))
    maps, reliability = {}, {}
    for name, noise in (("01", 0.5), ("02", 1.5)):
        maps[name], reliability[name] = scanned(signal, noise=noise, rng=rng)
    store = SimpleNamespace(
        mask=np.ones((SIDE, SIDE), bool),
        attributes=SimpleNamespace(repeats={"01": 2, "02": 2, "03": 1}),
        quality=lambda kind, name: {"reliability": reliability}[kind][name],
    )
    return np.stack([maps["01"], maps["02"]]), store


def test_equal_brains_are_as_alike_as_noise_lets_them(brains):
    maps, store = brains
    expected = ceiling(store, ["01", "02"])
    # Noise of variance 0.25 and 2.25 on a signal of 1, averaged over two repeats.
    assert expected == pytest.approx((1.125 * 2.125) ** -0.5, abs=0.01)
    assert inter_subject_correlation(maps, store.mask) == pytest.approx(expected, abs=0.01)


def test_without_repeats_or_company_there_is_no_ceiling(brains):
    _, store = brains
    assert np.isnan(ceiling(store, ["01"]))
    assert np.isnan(ceiling(store, ["01", "03"]))
