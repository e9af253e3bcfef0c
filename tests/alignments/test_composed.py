"""Composed: one after the other, each fitted to what those before it give."""

import jax.numpy as jnp
import numpy as np
import pytest

from glfa_jax.alignments import Group
from glfa_jax.alignments.composed import Composed
from glfa_jax.alignments.protocol import apply_layer
from glfa_jax.alignments.ridge import Ridge
from glfa_jax.alignments.warp import Warp
from glfa_jax.errors import InputError
from tests.alignments import moved
from tests.alignments.moved import MASK

SHAPE = MASK.shape


def test_it_is_one_after_the_other():
    world = moved.make()
    targets, group = world.same.mean(0), Group(world.same, MASK)
    first, second = Warp(grid=6), Ridge(part="global", rank=20)
    warp = first.fit(world.maps, targets=targets, group=group).params
    warped = np.asarray(apply_layer(first.layer(SHAPE), warp, jnp.asarray(world.maps)))
    ridge = second.fit(warped, targets=targets, group=group).params
    method = Composed("warp grid=6, identity, ridge part=global rank=20")
    fitted = method.fit(world.maps, targets=targets, group=group)
    made = apply_layer(method.layer(SHAPE), fitted.params, jnp.asarray(world.maps))
    expected = apply_layer(second.layer(SHAPE), ridge, jnp.asarray(warped))
    np.testing.assert_allclose(made, expected, atol=1e-4)


def test_it_needs_what_the_most_demanding_part_does():
    assert Composed("identity").needs == "nothing"
    assert Composed("identity, warp").needs == "unlabelled"
    method = Composed("warp, ridge")
    assert method.needs == "paired"
    maps = np.ones((2, 2, *SHAPE))
    with pytest.raises(InputError, match="composed needs what others have of the clips"):
        method.fit(maps, targets=None, group=Group(maps[None], MASK))


@pytest.mark.parametrize(
    ("methods", "trains", "fitted"),
    [
        ("warp, ridge", False, "warp, ridge"),
        ("warp grid=8, ridge, glfa", True, "warp grid=8, ridge"),
        ("identity, glfa", True, None),
        ("glfa", True, None),
        ("identity", False, None),
    ],
)
def test_what_stage_two_does_not_train_is_fitted_beforehand(methods, trains, fitted):
    method = Composed(methods)
    assert method.trainable == trains
    assert method.beforehand == (None if fitted is None else Composed(fitted))


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        ("warp, ridges", "'ridges' is no alignment"),
        ("", "'' is no alignment"),
        ("warp grid 8", "methods: 'grid' after warp, must be an option such as grid=8"),
        ("warp grid=0", "methods: warp: grid is 0, must be one integer from 1"),
        ("warp speed=3", "methods: warp: speed, but the options of alignment.method warp are grid"),
        ("ridge part=all", "methods: ridge: part is 'all', must be 'local' or 'global' or 'both'"),
        ("composed", "methods: holds composed itself, must hold other methods"),
        ("glfa, warp", "methods: glfa, warp, but what stage 2 trains .* must come last"),
    ],
)
def test_what_is_no_composition_is_rejected(methods, said):
    with pytest.raises(InputError, match=said):
        Composed.from_options({"methods": methods}, place="alignment.options")
