"""Displacement told by maps of the anatomy: a law that is known is learned, and none from noise."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from glfa_jax.alignments import Group, get, warping
from glfa_jax.alignments.anatomy import Anatomy, predicted, regression
from glfa_jax.alignments.composed import Composed
from glfa_jax.alignments.protocol import Brains
from glfa_jax.data import flatmap, surfaces
from glfa_jax.errors import InputError
from glfa_jax.simulate.anatomy import draw_anatomy
from glfa_jax.simulate.cortex import visual_cortex
from glfa_jax.simulate.displacement import smooth_displacement
from glfa_jax.simulate.streams import Stream, generator
from tests.alignments.moved import LEFT, MASK, SIDE

SHAPE = (SIDE, SIDE)
SUBJECTS = 8
METHOD = Anatomy(grid=8)


def draw(seed: int) -> np.ndarray:
    """Two smooth maps, of one subject, as z-scores over the cortex."""
    drawn = np.random.default_rng(seed).standard_normal((2, SIDE, SIDE))
    fields = gaussian_filter(drawn, (0, 4, 4), mode="wrap")
    fields -= fields[:, MASK].mean(1)[:, None, None]
    return fields / fields[:, MASK].std(1)[:, None, None] * MASK


def law(maps: np.ndarray) -> np.ndarray:
    """Down and across; across follows a height, so that hemispheres differ in its sign, and the
    slope of the other map, in which a mirror changes the sign as well."""
    whole = gaussian_filter(maps, (0, 1, 1))
    outside = np.where(LEFT, -1.0, 1.0)
    slope = np.gradient(whole[1], axis=1)
    return np.stack([maps[1] - 2 * slope * outside, maps[0] * outside], axis=-1) * MASK[..., None]


def brains(rng: np.random.Generator, *, tells: bool, subjects: int = SUBJECTS) -> Brains:
    maps = np.stack([draw(seed) for seed in range(subjects + 1)])
    told = maps if tells else np.stack([draw(100 + seed) for seed in range(subjects + 1)])
    shifts = np.stack([law(one) for one in told[1:]]) + 0.3  # all of them moved alike as well
    shifts += 0.05 * rng.standard_normal(shifts.shape)
    return Brains(own=maps[0], theirs=maps[1:], shifts=shifts * MASK[..., None])


def share(found: np.ndarray, wanted: np.ndarray) -> float:
    return 1 - np.square(found - wanted)[MASK].sum() / np.square(wanted)[MASK].sum()


def test_a_linear_law_is_learned_and_told_of_a_new_subject():
    known = brains(np.random.default_rng(0), tells=True)
    learned = regression(known, MASK)
    assert learned.left_out > 0.8
    shift = predicted(known, MASK, weights=learned.weights)
    mean = known.shifts.mean(0)
    assert share(np.moveaxis(shift, 0, -1) - mean, law(known.own) + 0.3 - mean) > 0.8
    assert not shift[:, ~MASK].any()

    # What is learned does not depend on units, nor on what all subjects have in common.
    scaled = known._replace(own=5 * known.own, theirs=5 * known.theirs + 3 * MASK)
    again = predicted(scaled, MASK, weights=regression(scaled, MASK).weights)
    np.testing.assert_allclose(again, shift, atol=1e-6)


def test_the_law_of_the_simulation_is_learned_on_its_flat_map():
    """Directions of the cortex there, forward and up, are those of the map here."""
    cortex, flat = visual_cortex(), flatmap.build(surfaces.fsaverage5(), map_size=SIDE)
    maps, shifts = [], []
    for index in range(5):
        anatomy = draw_anatomy(generator(0, Stream.ANATOMY, index=index), cortex)
        rng = generator(0, Stream.SUBJECT, index=index)
        options = {"size": 3.0, "anatomy": anatomy, "correlation": 0.95}
        forward, up = smooth_displacement(rng, cortex, **options).T
        drawn = np.stack([anatomy.curvature, anatomy.myelin, -up, cortex.side * forward])
        drawn = flat.to_map(np.concatenate(cortex.on_the_mesh(drawn), axis=1))
        maps.append(drawn[:2])
        shifts.append(-np.moveaxis(drawn[2:], 0, -1))
    known = Brains(maps[0], np.stack(maps[1:]), np.stack(shifts[1:]))
    learned = regression(known, flat.mask)
    assert learned.left_out > 0.6
    found = np.moveaxis(predicted(known, flat.mask, weights=learned.weights), 0, -1)
    mean = known.shifts.mean(0)
    assert share(found - mean, shifts[0] - mean) > 0.6


def test_hemispheres_are_mirror_images_of_each_other():
    row, column = np.indices(SHAPE)
    mask = ((row - 15.5) / 13) ** 2 + ((abs(column - 15.5) - 8) / 6) ** 2 < 1
    known = brains(np.random.default_rng(0), tells=True)
    turned = Brains(known.own[..., ::-1], known.theirs[..., ::-1], known.shifts[:, :, ::-1])
    turned = turned._replace(shifts=turned.shifts * [1, -1])
    one, other = regression(known, mask), regression(turned, mask)
    np.testing.assert_allclose(other.weights, one.weights, atol=1e-8)
    there = predicted(turned, mask, weights=one.weights)
    here = predicted(known, mask, weights=one.weights)
    np.testing.assert_allclose(there[0], here[0, :, ::-1], atol=1e-8)
    np.testing.assert_allclose(there[1], -here[1, :, ::-1], atol=1e-8)


def test_anatomy_that_says_nothing_brings_nothing():
    known = brains(np.random.default_rng(0), tells=False)
    learned = regression(known, MASK)
    assert learned.left_out < 0.05
    found = np.moveaxis(predicted(known, MASK, weights=learned.weights), 0, -1)
    moved = (found - known.shifts.mean(0))[MASK]
    assert np.square(moved).mean() < 0.05 * np.square(known.shifts.std(0)[MASK]).mean()


def test_the_layer_is_that_of_warp():
    known = brains(np.random.default_rng(0), tells=True)
    rng = np.random.default_rng(1)
    others = gaussian_filter(rng.standard_normal((3, 20, 2, *SHAPE)), (0, 0, 0, 1, 1)) * MASK
    group = Group(others.astype(np.float32), MASK, brains=known)
    fitted = METHOD.fit(np.zeros((0, 2, *SHAPE), np.float32), targets=None, group=group)
    assert fitted.report == {}  # there was no fMRI to measure it by
    shift = METHOD.shift(fitted.params, maps_shape=SHAPE)
    wanted = predicted(known, MASK, weights=regression(known, MASK).weights)
    assert share(shift, np.moveaxis(wanted, 0, -1)) > 0.9  # all that a spline can follow
    warp = get("warp")(grid=8)
    np.testing.assert_array_equal(warp.shift(fitted.params, maps_shape=SHAPE), shift)
    gain = fitted.params["amplitude"]["gain"]
    assert 1.02 < gain[MASK].mean() < 1.5  # between pixels noise averages out
    plain = METHOD.fit(
        np.zeros((0, 2, *SHAPE)), targets=None, group=group._replace(maps=group.maps[:, :0])
    )
    np.testing.assert_array_equal(plain.params["amplitude"]["gain"], 1)
    np.testing.assert_array_equal(plain.params["displacement"], fitted.params["displacement"])


def test_nodes_of_a_displacement_are_found_again():
    cortex = warping.hemispheres(MASK)
    nodes = np.random.default_rng(0).standard_normal((2, 2, 5, 5))
    shift = np.asarray(warping.displacement(nodes, cortex))
    found = warping.nodes_of(shift, cortex, grid=5)
    again = np.asarray(warping.displacement(found, cortex))
    assert share(np.moveaxis(again, 0, -1), np.moveaxis(shift, 0, -1)) > 0.999
    assert np.isfinite(warping.nodes_of(shift, cortex, grid=20)).all()  # more than pixels can say


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (None, "anatomy: learns from .* .group.brains., which the command train.adapt --method"),
        (
            brains(np.random.default_rng(0), tells=True, subjects=2),
            "protocol.train_subjects: are 2, but anatomy learns from at least 3, better from 10",
        ),
    ],
)
def test_what_it_cannot_be_fitted_to_is_said(known, said):
    group = Group(np.zeros((2, 0, 2, *SHAPE)), MASK, brains=known)
    with pytest.raises(InputError, match=said):
        METHOD.fit(np.zeros((0, 2, *SHAPE)), targets=None, group=group)


def test_it_is_no_part_of_a_composition():
    with pytest.raises(InputError, match="holds anatomy, which knows no maps of fMRI and stands"):
        Composed("anatomy, ridge")
