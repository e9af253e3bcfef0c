"""GLFA and the identity as alignments: where they start, and what they are fitted to."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from glfa_jax import alignments, config
from glfa_jax.alignments import SHARED, Group, Layer, with_layer
from glfa_jax.alignments.glfa import Glfa
from glfa_jax.alignments.identity import Identity
from glfa_jax.convert.pretrained import Pretrained
from glfa_jax.errors import InputError
from glfa_jax.models.lea import Lea
from tests.test_method import settings

SIDE = 64


@pytest.mark.parametrize("kernel_size", [3, 13])
@pytest.mark.parametrize("smoothing", [0, 2])
@pytest.mark.parametrize("amplitude", [1.0, 20.0])
def test_at_first_it_is_the_identity_up_to_the_bound_that_is_stated(
    kernel_size, smoothing, amplitude
):
    maps = np.random.default_rng(0).standard_normal((4, SIDE, SIDE)).astype(np.float32)
    if smoothing:
        maps = gaussian_filter(maps, (0, smoothing, smoothing))
        maps /= maps.std()
    maps *= amplitude
    method = Glfa(kernel_size=kernel_size)
    params = method.init(jax.random.key(0), maps_shape=(SIDE, SIDE))
    change = np.abs(method.apply(params, jnp.asarray(maps), subject="03") - maps).max()
    bound = method.layer((SIDE, SIDE)).change_at_start(float(np.abs(maps).max()))
    assert 0.05 * bound < change <= bound


def test_with_wide_kernels_it_is_further_from_the_identity_than_its_parameters():
    maps = jax.random.normal(jax.random.key(1), (4, 256, 256))
    method = Glfa()
    params = method.init(jax.random.key(0), maps_shape=(256, 256))
    change = float(jnp.abs(method.apply(params, maps, subject="03") - maps).max())
    assert max(float(jnp.abs(x).max()) for x in params[SHARED].values()) < 5e-5
    assert 3e-3 < change < 7e-3


def test_a_shift_is_found_in_memory():
    rng = np.random.default_rng(0)
    mask = np.pad(np.ones((12, 12), bool), 2)
    shape = (30, 2, 16, 16)
    targets = gaussian_filter(rng.standard_normal(shape), (0, 0, 0.7, 0.7), mode="wrap")
    targets /= targets.std()
    maps, targets = ((x * mask).astype(np.float32) for x in (np.roll(targets, 1, -1), targets))
    method = Glfa(patch_size=8, kernel_size=3)
    descent = config.Adapt(steps=60, learning_rate=0.03, batch_size=10, regularisation_scale=0.1)
    group = Group(targets[None], mask)
    fitted = method.fit(maps, targets=targets, group=group, settings=descent)
    assert fitted.report["distance_after"] < 0.2 * fitted.report["distance_before"]
    taps = np.abs(fitted.params["weight"] + (np.arange(9) == 4)[:, None, None])
    inside = (taps / taps.sum(0))[:, 3:-3, 3:-3].mean((1, 2))
    assert inside.argmax() == 5  # the pixel to the right
    again = method.fit(maps, targets=targets, group=group, settings=descent)
    jax.tree.map(np.testing.assert_array_equal, fitted.params, again.params)
    none = descent.model_copy(update={"learning_rate": 1e-9})
    start = group._replace(start=fitted.params)
    kept = method.fit(maps, targets=targets, group=start, settings=none).params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), kept, fitted.params)


def test_a_layer_of_every_subject_is_its_own():
    params = Glfa(patch_size=8, kernel_size=3).init(
        jax.random.key(0), maps_shape=(16, 24), subjects=("01", "02")
    )
    assert params.keys() == {"01", "02"}
    assert np.any(params["01"]["weight"] != params["02"]["weight"])


@pytest.mark.parametrize(
    ("alignment", "method"),
    [
        ({}, Glfa()),
        ({"kernel_size": 3, "local_part": False}, Glfa(16, 3, True, False)),
        ({"global_part": False, "local_part": False}, Identity()),
        ({"method": "identity"}, Identity()),
        ({"method": "glfa", "per_subject": True}, Glfa()),
    ],
)
def test_old_keys_and_the_new_one_name_the_same_methods(alignment, method):
    own = settings(alignment=alignment)
    assert alignments.configured(own) == method
    assert own.aligned == (method != Identity())


def test_the_identity_changes_nothing_and_is_fitted_to_nothing():
    method = Identity()
    maps = jax.random.normal(jax.random.key(1), (4, 8, 8))
    params = method.init(jax.random.key(0), maps_shape=(8, 8))
    np.testing.assert_array_equal(method.apply(params, maps, subject="03"), maps)
    with pytest.raises(InputError, match="identity has nothing to be fitted"):
        method.fit(maps[None], targets=None, group=Group(maps[None, None], np.ones((8, 8), bool)))


def test_a_regression_takes_no_layer_but_the_identitys():
    lea = Lea(height=8, width=8, window=1, tokens=2, token_dim=3, clip_dim=4)
    regression: Any = Pretrained(lea, {})
    assert with_layer(regression, Layer(Identity(), {})) is regression
    with pytest.raises(InputError, match="no layer of glfa goes in front of it"):
        with_layer(regression, Layer(Glfa(), {}))


def test_every_file_of_a_method_is_found():
    assert {"glfa", "identity"} <= set(alignments.ALIGNMENTS)
    with pytest.raises(ValueError, match="alignment 'glfa': is registered already"):
        alignments.register("glfa")(Identity)
