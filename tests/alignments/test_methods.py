"""What holds for every method beside GLFA that is fitted to maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glfa_jax.alignments import SHARED, Group, get
from glfa_jax.errors import InputError

SHAPE = (20, 24)
MASK = np.pad(np.ones((16, 8), bool), 2)
MASK = np.concatenate([MASK, MASK], axis=1)
RNG = np.random.default_rng(0)
NOISE = RNG.standard_normal((3, 12, 2, *SHAPE))
TARGETS = ((NOISE[0] + np.roll(NOISE[0], 1, -1) + 0.5 * NOISE[1]) * MASK).astype(np.float32)
MAPS = ((np.roll(NOISE[0], 1, -2) + NOISE[0] + 0.5 * NOISE[2]) * MASK).astype(np.float32)
METHODS = {
    "warp": {"grid": 4, "parcels": 8},
    "ridge": {"part": "both", "kernel_size": 3, "rank": 8},
    "procrustes": {"cell": 4},
    "transport": {"cell": 4},
    "composed": {"methods": "warp grid=4, ridge kernel_size=3"},
}


def made(name: str):
    return get(name).from_options(METHODS[name], place="options")


@pytest.mark.parametrize("name", METHODS)
def test_what_is_fitted_can_be_saved_and_leaves_amplitude_and_empty_pixels(name, tmp_path):
    method = made(name)
    fresh = method.init(jax.random.key(0), maps_shape=SHAPE)
    np.testing.assert_allclose(method.apply(fresh, MAPS, subject="01"), MAPS, atol=1e-5)
    fitted = method.fit(MAPS, targets=TARGETS, group=Group(TARGETS[None], MASK))
    assert fitted.report["distance_after"] < fitted.report["distance_before"]
    method.save(tmp_path, fitted.params, maps_shape=SHAPE)
    params = {SHARED: method.load(tmp_path, maps_shape=SHAPE)}
    jax.tree.map(np.testing.assert_array_equal, params[SHARED], fitted.params)
    aligned = np.asarray(method.apply(params, jnp.asarray(MAPS), subject="01"))
    assert not aligned[..., ~MASK].any()
    np.testing.assert_allclose(aligned.std((0, 1)), MAPS.std((0, 1)), rtol=1e-3)
    gradient = jax.grad(lambda x: jnp.square(method.apply(params, x, subject="01")).sum())
    assert np.isfinite(gradient(jnp.asarray(MAPS))).all()  # a decoder may be trained through it


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("maps", "targets", "said"),
    [
        (0 * MAPS + MASK, TARGETS, "maps: no pixel varies over their 24 volumes"),
        (MAPS, 0 * TARGETS, "targets: no pixel varies over their 24 volumes"),
        (MAPS[:1, :1], TARGETS[:1, :1], "maps: hold 1 volumes in all, must be at least 2"),
    ],
)
def test_maps_that_say_nothing(name, maps, targets, said):
    with pytest.raises(InputError, match=said):
        made(name).fit(maps, targets=targets, group=Group(targets[None], MASK))


@pytest.mark.parametrize("name", ["ridge", "procrustes", "transport"])
def test_one_clip_has_no_halves(name):
    with pytest.raises(InputError, match="maps: hold 1 clips of 2 volumes, must hold at least two"):
        made(name).fit(MAPS[:1], targets=TARGETS[:1], group=Group(TARGETS[None], MASK))
