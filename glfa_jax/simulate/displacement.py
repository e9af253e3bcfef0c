"""Where the functional map of a subject lies: displaced smoothly, and area by area.

Smooth displacement bends the map and tears it nowhere. Patchwise displacement has sharp borders:
areas, the same in all subjects, differ in size, and some swap places with a neighbour.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.spatial.distance import cdist

from glfa_jax import config
from glfa_jax.simulate.anatomy import Anatomy
from glfa_jax.simulate.cortex import Cortex, smooth_field
from glfa_jax.simulate.streams import Stream, generator

DISPLACEMENT_SCALE = 20.0  # mm, correlation length of the smooth displacement
AREA_SPACING = 14.0  # mm, least distance between the centres of two areas
NEIGHBOURS = 1.5  # areas whose centres are at most so many spacings apart may swap places


def smooth_displacement(
    rng: np.random.Generator,
    cortex: Cortex,
    *,
    size: float,
    anatomy: Anatomy | None = None,
    correlation: float = 0.0,
) -> Float[ndarray, "r 2"]:
    """Forward and up in mm, `size` its root mean square over the region.

    correlation: rho in rho * (what `anatomy` says) + sqrt(1 - rho^2) * (random).
    """
    field = smooth_field(rng, count=4, scale=DISPLACEMENT_SCALE)(cortex.canonical)
    displacement = cortex.of_each_side(field)  # hemispheres move independently of each other
    if anatomy is not None:
        said = anatomy.says * (_size(displacement) / _size(anatomy.says))
        displacement = correlation * said + np.sqrt(1 - correlation**2) * displacement
    displacement *= size / _size(displacement)
    return displacement


def _size(displacement: Float[ndarray, "r 2"]) -> float:
    return np.sqrt(np.mean((displacement**2).sum(axis=1)))


@dataclass(frozen=True, eq=False)
class Patchwork:
    """The areas of one subject, over the r vertices of the visual region.

    area: the area that a vertex lies in. tuned_as: the one whose tuning it has; another one where
        the two have swapped places. Numbers mean the same areas in all subjects.
    displacement: forward and up, mm.
    """

    area: Int[ndarray, " r"]
    tuned_as: Int[ndarray, " r"]
    displacement: Float[ndarray, "r 2"]


def draw_patchwork(simulation: config.Simulation, cortex: Cortex, *, index: int) -> Patchwork:
    """Of subject `index`.

    A vertex lies in the area whose centre is nearest in units of the area's radius, and answers as
    the place that is as many radii off the centre in the canonical map, where all radii are 1.
    """
    rng = generator(simulation.seed, Stream.PATCHWISE, index=index)
    everywhere = generator(simulation.seed, Stream.AREAS)
    area, tuned_as = (np.zeros(len(cortex.side), int) for _ in range(2))
    displacement = np.zeros_like(cortex.canonical)
    first = 0  # number of the hemisphere's first area
    for side in (-1, 1):
        here = cortex.side == side
        places = cortex.canonical[here]
        centres = places[_far_apart(everywhere, places)]
        radius = np.exp(simulation.patchwise / 2 * rng.standard_normal(len(centres)))
        shown = _swapped(rng, centres, share=simulation.patchwise)
        nearest = (cdist(places, centres) / radius).argmin(axis=1)
        offset = (places - centres[nearest]) / radius[nearest, None]
        area[here], tuned_as[here] = first + nearest, first + shown[nearest]
        displacement[here] = centres[shown[nearest]] + offset - places
        first += len(centres)
    return Patchwork(area, tuned_as, displacement)


def _far_apart(rng: np.random.Generator, places: Float[ndarray, "v 2"]) -> list[int]:
    """Random places, as many as lie AREA_SPACING apart from each other."""
    chosen: list[int] = []
    for vertex in rng.permutation(len(places)):
        if (cdist(places[chosen], places[[vertex]]) >= AREA_SPACING).all():
            chosen.append(vertex)
    return chosen


def _swapped(
    rng: np.random.Generator, centres: Float[ndarray, "a 2"], *, share: float
) -> Int[ndarray, " a"]:
    """Which area shows at the place of each; up to `share` of them show a neighbour."""
    way = cdist(centres, centres)
    shown = np.arange(len(centres))
    left = round(share * len(centres) / 2)  # pairs
    for area in rng.permutation(len(centres)):
        free = shown == np.arange(len(centres))
        others = np.flatnonzero(free & (way[area] <= NEIGHBOURS * AREA_SPACING))
        others = others[others != area]
        if left and free[area] and len(others):
            other = rng.choice(others)
            shown[[area, other]] = other, area
            left -= 1
    return shown
