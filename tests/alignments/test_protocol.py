"""What an alignment must be, and what is said of one that is not."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import numpy as np
import pytest

from glfa_jax.alignments import ALIGNMENTS, Alignment, Group, register
from glfa_jax.errors import InputError

SIDE = 4
MASK = np.pad(np.ones((2, 2), bool), 1)
MAPS = np.random.default_rng(0).standard_normal((3, 2, SIDE, SIDE)).astype(np.float32) * MASK


class _Shift(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x + self.param("shift", nn.initializers.zeros, x.shape[-2:])


@dataclass(frozen=True)
class Shift(Alignment):
    """y = x + b, b being what a test gives."""

    given: Any = None

    name = "test-shift"
    needs = "unlabelled"

    def layer(self, maps_shape, *, box=None):
        return _Shift()

    def solve(self, maps, *, targets, group, settings, seed):
        return self.given


def fitted(given: Any) -> np.ndarray:
    fit = Shift(given).fit(MAPS, targets=None, group=Group(MAPS[None], MASK))
    return fit.params["shift"]


def test_a_layer_may_change_the_cortex_alone():
    shift = np.float32(0.5) * MASK
    np.testing.assert_array_equal(fitted({"shift": shift}), shift)
    said = "^alignment.method: the layer of test-shift fills pixels outside the cortex, must leave"
    with pytest.raises(InputError, match=said):
        fitted({"shift": np.full((SIDE, SIDE), 0.5, np.float32)})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"gain": np.zeros((SIDE, SIDE))}, r"gives gain \(4, 4\), must give .* shift \(4, 4\)$"),
        ({"shift": np.zeros(SIDE)}, r"gives shift \(4,\), must give the parameters of its layer"),
        (None, "solve of test-shift gives none, must"),
    ],
)
def test_what_is_solved_are_the_layers_parameters(given, said):
    with pytest.raises(InputError, match=said):
        fitted(given)


def solve(self, maps, *, targets, group, settings, seed):
    return {}


@pytest.mark.parametrize(
    ("bases", "members", "said"),
    [
        ((), {}, "is no subclass of Alignment"),
        ((Alignment,), {"needs": "paired", "solve": solve}, "lacks layer$"),
        (
            (Alignment,),
            {},
            "lacks layer and solve and needs, one of nothing, anatomy, unlabelled, ",
        ),
        ((Shift,), {"needs": "pairs"}, "lacks needs, one of"),
        ((Shift,), {"__annotations__": {"most": float}, "most": 2.0}, r"must have @dataclass\("),
    ],
)
def test_a_class_that_is_no_alignment_is_not_registered(bases, members, said):
    with pytest.raises(ValueError, match=f"^alignment 'test-none': {said}"):
        register("test-none")(type("Other", bases, members))
    assert "test-none" not in ALIGNMENTS
