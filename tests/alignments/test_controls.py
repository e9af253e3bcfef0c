"""Controls: they move maps as far as the warp that they are controls of, and bring nothing."""

import jax.numpy as jnp
import numpy as np
import pytest

from glfa_jax.alignments import Group, get
from glfa_jax.alignments.protocol import apply_layer
from tests.alignments import moved
from tests.alignments.moved import MASK, SIDE

SHAPE = (SIDE, SIDE)


@pytest.fixture(scope="module")
def world() -> moved.Moved:
    return moved.make()


def fitted(world: moved.Moved, name: str) -> tuple[np.ndarray, float]:
    """Displacement, and the correlation of aligned maps with the others' of the same clips."""
    method, targets = get(name)(grid=6), world.same.mean(0)
    params = method.fit(world.maps, targets=targets, group=Group(world.other, MASK)).params
    layer = method.layer(SHAPE)
    aligned = np.asarray(apply_layer(layer, params, jnp.asarray(world.maps)))
    alike = np.corrcoef(aligned[..., MASK].ravel(), targets[..., MASK].ravel())[0, 1]
    return method.shift(params, maps_shape=SHAPE), float(alike)


def test_neither_brings_subjects_together(world):
    before = np.corrcoef(world.maps[..., MASK].ravel(), world.same.mean(0)[..., MASK].ravel())[0, 1]
    shift, alike = fitted(world, "warp")
    assert alike > before + 0.1
    for name in ("random-warp", "shuffled-warp"):
        assert fitted(world, name)[1] < before + 0.02, name
    random, _ = fitted(world, "random-warp")
    sizes = [np.sqrt(np.square(one[MASK]).sum(-1).mean()) for one in (shift, random)]
    assert 0.6 < sizes[1] / sizes[0] < 1.6
    assert abs(np.corrcoef(shift[MASK].ravel(), random[MASK].ravel())[0, 1]) < 0.5


def test_no_clip_keeps_its_target(world, monkeypatch):
    method, seen = get("shuffled-warp")(grid=6), []
    parent = type(method).__mro__[1]
    monkeypatch.setattr(
        parent, "nodes", lambda self, volumes, *, targets, **_: seen.append(targets)
    )
    targets = world.same.mean(0)
    method.nodes(world.maps, targets=targets, group=Group(world.other, MASK), seed=0)
    [mixed] = seen
    assert not any(np.array_equal(a, b) for a, b in zip(mixed, targets, strict=True))
    assert {x.tobytes() for x in mixed} == {x.tobytes() for x in targets}
