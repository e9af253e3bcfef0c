"""How sure a fitted layer is, by halves of the clips."""

from dataclasses import dataclass

import numpy as np
import pytest

from glfa_jax import alignments
from glfa_jax.alignments import Group
from glfa_jax.config import Adapt
from glfa_jax.stages.certainty import certainty, is_quick
from glfa_jax.stages.fitting import Maps
from tests.alignments.test_gain import MASK, Gain, Spread

CLIPS, WINDOW = 8, 3


@dataclass(frozen=True)
class Drifting(Spread):
    """Whose gain is also how far it displaces downwards."""

    def shift(self, params, *, maps_shape):
        return params["gain"][..., None] * np.array([1.0, 0.0])


def drawn(seed: int) -> np.ndarray:
    shape = (CLIPS, WINDOW, *MASK.shape)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32) * MASK


def measured(method, maps: Maps, *, reference=None):
    return certainty(method, maps, reference=reference, settings=Adapt(), seed=0)


def test_a_layer_is_judged_by_the_half_that_it_was_not_fitted_to():
    """Halves of opposite sign: what is fitted to one is wrong in the other, everywhere."""
    own = drawn(0)
    targets = np.concatenate([own[: CLIPS // 2], -own[CLIPS // 2 :]])
    found = measured(Gain(), Maps(own, targets, Group(targets[None], MASK)))
    assert found.numbers == {
        "held_out_before": pytest.approx(0, abs=1e-6),
        "held_out_after": pytest.approx(-1, abs=1e-6),
    }
    np.testing.assert_array_equal(np.isfinite(found.maps["held_out_after"]), MASK)
    assert not found.not_measured


def test_displacements_of_halves_are_compared_less_what_training_subjects_have():
    own, theirs = drawn(0), drawn(1)
    maps = Maps(own, None, Group(theirs[None], MASK))
    reference = np.random.default_rng(2).standard_normal((*MASK.shape, 2))
    gains = [
        theirs[..., MASK].std((0, 1)) / half[..., MASK].std((0, 1)) for half in np.split(own, 2)
    ]
    fields = [np.stack([gain, 0 * gain], 1) - reference[MASK] for gain in gains]
    assert measured(Drifting(), maps, reference=reference).numbers == {
        "halves_correlation": pytest.approx(np.corrcoef(*map(np.ravel, fields))[0, 1], abs=1e-4),
        "halves_difference_pixels": pytest.approx(
            np.sqrt(np.square(gains[0] - gains[1]).mean()), rel=1e-4
        ),
    }


def test_what_cannot_be_measured_is_said():
    unpaired = Maps(drawn(0), None, Group(drawn(1)[None], MASK))
    assert "without clips that others saw" in measured(Spread(), unpaired).not_measured
    few = Maps(drawn(0)[:2], drawn(1)[:2], Group(drawn(1)[None, :2], MASK))
    found = measured(alignments.get("ridge")(), few)
    assert found.numbers == {}
    assert "half of the clips is too little to fit a layer to (maps: hold 1 clips" in (
        found.not_measured
    )


@pytest.mark.parametrize(
    ("method", "quick"),
    [("ridge", True), ("glfa", False), ("warp, ridge", True), ("warp, glfa", False)],
)
def test_only_methods_without_training_are_fitted_to_halves(method, quick):
    composed = alignments.get("composed")
    one = composed(method) if "," in method else alignments.get(method)()
    assert is_quick(one) == quick
