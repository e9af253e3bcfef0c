"""Displacement with sharp borders, and displacement that anatomy tells."""

import numpy as np
import pytest
from scipy.spatial import KDTree

from glfa_jax.config import Simulation
from glfa_jax.simulate.anatomy import ANATOMY_SCALE, STEEP, UNITS, draw_anatomy
from glfa_jax.simulate.cortex import visual_cortex
from glfa_jax.simulate.displacement import AREA_SPACING, draw_patchwork, smooth_displacement
from glfa_jax.simulate.streams import Stream, generator
from glfa_jax.simulate.subjects import draw_subject
from glfa_jax.simulate.tuning import canonical_tuning

PATCHWISE = Simulation(displacement=0, patchwise=0.4, mixing=0, gain=0)


@pytest.fixture(scope="module")
def cortex():
    return visual_cortex()


@pytest.fixture(scope="module")
def tuning(cortex):
    return canonical_tuning(cortex, seed=0)


@pytest.fixture(scope="module")
def patchworks(cortex):
    return [draw_patchwork(PATCHWISE, cortex, index=index) for index in range(4)]


def _neighbours(cortex) -> tuple[np.ndarray, np.ndarray]:
    """Vertices of one hemisphere at most 3 mm apart."""
    far = cortex.canonical + 1e3 * cortex.side[:, None]
    return KDTree(far).query_pairs(3.0, output_type="ndarray").T


def test_a_vertex_has_the_canonical_tuning_of_its_place_and_displacement(cortex, tuning):
    """Smooth, patchwise and anatomical displacement together."""
    simulation = PATCHWISE.model_copy(update={"displacement": 3.0, "anatomy": 0.6})
    subject = draw_subject(simulation, tuning, index=1)
    places = cortex.canonical + subject.displacement
    np.testing.assert_array_equal(subject.weights, tuning.weights(places, cortex.side))
    assert subject.patchwork is not None
    smooth = subject.displacement - subject.patchwork.displacement
    assert np.sqrt((smooth**2).sum(axis=1).mean()) == pytest.approx(3.0)


def test_areas_swap_places_with_a_neighbour(cortex, patchworks):
    plain = draw_patchwork(Simulation(patchwise=0.0), cortex, index=0)
    for one in patchworks:
        areas = np.unique(one.area)
        shown = np.array([one.tuned_as[one.area == area][0] for area in areas])
        moved = areas[shown != areas]
        assert len(moved) / len(areas) == pytest.approx(PATCHWISE.patchwise, abs=0.1)
        for area in moved:
            other = one.tuned_as[one.area == area][0]
            assert set(one.tuned_as[one.area == other]) <= {area}
            here, there = (cortex.canonical[one.area == which] for which in (area, other))
            if len(there):
                assert np.linalg.norm(here[:, None] - there, axis=-1).min() < AREA_SPACING
        # What a vertex answers to lies in the area that it is tuned as, in the canonical map. Areas
        # have no common outline, so that where two have swapped places a part sticks out.
        apart = 1e3 * cortex.side[:, None]
        target = KDTree(cortex.canonical + apart).query(
            cortex.canonical + one.displacement + apart
        )[1]
        assert np.mean(plain.area[target] == one.tuned_as) > 0.8


def test_areas_differ_in_size_between_subjects(patchworks):
    number = max(one.area.max() for one in patchworks) + 1
    sizes = np.array([np.bincount(one.area, minlength=number) for one in patchworks])
    spread = np.log(sizes.clip(1)).std(axis=0).mean()
    assert PATCHWISE.patchwise / 2 < spread < 2 * PATCHWISE.patchwise


def test_an_area_that_is_larger_is_stretched_over_its_place(cortex):
    """Its borders show what they show in the canonical map, as far as sizes agree all round."""
    simulation = Simulation(patchwise=0.4)
    plain = draw_patchwork(Simulation(patchwise=0.0), cortex, index=0)
    one = draw_patchwork(simulation, cortex, index=0)
    larger, stretched = [], []
    for area in np.unique(one.area):
        here, before = one.area == area, plain.area == area
        if here.sum() > 30:
            shown = (cortex.canonical + one.displacement)[here]
            larger.append(np.log(here.sum() / before.sum()) / 2)  # of lengths
            spread, its = (x.std(axis=0).mean() for x in (cortex.canonical[here], shown))
            stretched.append(np.log(spread / its))
    assert np.corrcoef(larger, stretched)[0, 1] > 0.7
    slope = np.polyfit(larger, stretched, 1)[0]
    assert 0.5 < slope < 2


def test_displacement_is_torn_at_borders_and_nowhere_else(cortex, patchworks):
    one, (a, b) = patchworks[0], _neighbours(cortex)
    step = np.linalg.norm(one.displacement[a] - one.displacement[b], axis=1)
    inside = one.area[a] == one.area[b]
    assert step[inside].max() < 3.0  # an area may be stretched to twice its size at most
    swapped = (one.area == one.tuned_as)[a] != (one.area == one.tuned_as)[b]
    assert np.median(step[swapped]) > AREA_SPACING / 2


def test_without_strength_nothing_is_displaced(cortex):
    none = draw_patchwork(Simulation(patchwise=0.0), cortex, index=0)
    np.testing.assert_allclose(none.displacement, 0, atol=1e-9)
    np.testing.assert_array_equal(none.area, none.tuned_as)


@pytest.fixture(scope="module")
def anatomies(cortex):
    return [draw_anatomy(generator(0, Stream.ANATOMY, index=i), cortex) for i in range(8)]


def _displaced(cortex, index: int, anatomy=None, rho: float = 0.0):
    rng = np.random.default_rng(index)
    return smooth_displacement(rng, cortex, size=3.0, anatomy=anatomy, correlation=rho)


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_displacement_correlates_with_what_anatomy_says_as_asked_for(cortex, anatomies, rho):
    found = []
    for index, anatomy in enumerate(anatomies):
        displacement = _displaced(cortex, index, anatomy, rho)
        sizes = np.linalg.norm(displacement), np.linalg.norm(anatomy.says)
        assert sizes[0] == pytest.approx(3.0 * np.sqrt(len(displacement)))
        found.append(np.sum(displacement * anatomy.says) / np.prod(sizes))
    # By chance alone, subjects of smooth maps scatter by .15.
    assert np.mean(found) == pytest.approx(rho, abs=0.1)


def test_anatomy_that_says_nothing_leaves_the_subject_as_it_is(cortex, anatomies):
    for index, anatomy in enumerate(anatomies[:2]):
        null = _displaced(cortex, index, anatomy, 0.0)
        np.testing.assert_array_equal(null, _displaced(cortex, index))


def test_anatomy_tells_all_at_rho_1_by_one_local_function_of_both_maps(cortex, anatomies):
    """Values at a vertex, and slopes from a plane through its surroundings."""
    for anatomy in anatomies[:2]:
        maps = {
            name: (getattr(anatomy, name) - mean) / deviation
            for name, (mean, deviation) in UNITS.items()
        }
        tree = KDTree(cortex.canonical + 1e3 * cortex.side[:, None])
        vertices = np.random.default_rng(0).choice(len(cortex.side), 300, replace=False)
        told = []
        for vertex in vertices:
            near = tree.query(tree.data[vertex], 12)[1]
            offset = cortex.canonical[near] - cortex.canonical[vertex]
            plane = np.column_stack([offset, np.ones(len(near))])
            c, m = (np.linalg.lstsq(plane, maps[name][near])[0] for name in ("curvature", "myelin"))
            steep = STEEP * ANATOMY_SCALE
            told.append([c[2] + steep * m[1], m[2] - steep * c[0]])
        found = _displaced(cortex, 0, anatomy, 1.0)[vertices]
        scale = np.linalg.norm(found) / np.linalg.norm(told)
        error = scale * np.array(told) - found
        assert np.sqrt(np.mean(error**2)) < 0.15  # of 3 mm; at the rim, planes lean to one side
