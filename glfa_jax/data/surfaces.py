"""Cortical surfaces as data: flat coordinates, triangles, and which vertices are visual cortex."""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from nibabel.gifti.gifti import GiftiImage
from numpy import ndarray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

# The rule for the visual region on fsaverage5: everything behind this plane of the inflated surface
# (mm, the axis points to the front). It takes in the occipital lobe and the posterior ends of the
# temporal and parietal lobes.
POSTERIOR_OF = -40.0
# Triangles the flattening tore or stretched: an edge longer than this on the flat map (mm) ...
LONGEST_FLAT_EDGE = 8.0
# ... or this many times as long as on the pial surface.
GREATEST_STRETCH = 3.0


@dataclass(frozen=True, eq=False)
class Hemisphere:
    """One hemisphere; all coordinates in mm, vertices in the order of the time series.

    faces: triangles of the flat surface that were neither cut nor stretched.
    region: vertices of the visual region, one compact patch of the flat surface.
    region_faces: the triangles of `faces` whose three corners lie in the region.
    """

    flat: Float[ndarray, "v 2"]
    pial: Float[ndarray, "v 3"]
    inflated: Float[ndarray, "v 3"]
    faces: Int[ndarray, "t 3"]
    region: Bool[ndarray, " v"]
    region_faces: Int[ndarray, "r 3"]

    @property
    def num_vertices(self) -> int:
        return len(self.flat)


@dataclass(frozen=True, eq=False)
class Surfaces:
    """Both hemispheres. Values over the cortex are (..., vertices): left, then right."""

    space: str
    left: Hemisphere
    right: Hemisphere

    @property
    def num_vertices(self) -> int:
        return self.left.num_vertices + self.right.num_vertices

    @property
    def region(self) -> Bool[ndarray, " vertices"]:
        """Visual vertices of both hemispheres, left then right."""
        return np.concatenate([self.left.region, self.right.region])


@cache
def fsaverage5() -> Surfaces:
    """The fsaverage5 cortex from nilearn's wheel: 10,242 vertices a hemisphere, no network.

    Visual region: vertices behind y = -40 mm on the inflated surface, as far as sound triangles of
    the flat surface hold them together in one piece (largest piece by area on the flat map).
    """
    return Surfaces("fsaverage5", _hemisphere("left"), _hemisphere("right"))


def _hemisphere(side: str) -> Hemisphere:
    flat, flat_faces = _read(f"flat_{side}.gii.gz")
    pial, _ = _read(f"pial_{side}.gii.gz")
    inflated, _ = _read(f"infl_{side}.gii.gz")
    on_map, on_cortex = (_edges(points, flat_faces) for points in (flat[:, :2], pial))
    torn = on_map > np.minimum(LONGEST_FLAT_EDGE, GREATEST_STRETCH * on_cortex)
    faces = flat_faces[~torn.any(axis=1)]
    behind = inflated[:, 1] < POSTERIOR_OF
    region_faces = _largest_piece(faces[behind[faces].all(axis=1)], flat[:, :2])
    region = np.zeros(len(flat), bool)
    region[region_faces] = True
    return Hemisphere(flat[:, :2].copy(), pial, inflated, faces, region, region_faces)


def _read(name: str) -> tuple[ndarray, ndarray]:
    # The package is located, not imported: importing nilearn takes seconds and only files are used.
    spec = find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "nilearn is not installed; its wheel holds the fsaverage5 surfaces"
        )
    path = Path(spec.origin).parent / "datasets" / "data" / "fsaverage5" / name
    points, faces = (array.data for array in GiftiImage.from_filename(path).darrays[:2])
    return points.astype(np.float64), faces.astype(np.int64)


def _edges(points: ndarray, faces: ndarray) -> ndarray:
    """Lengths of the three edges of every triangle."""
    corners = points[faces]
    return np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=-1)


def _largest_piece(faces: ndarray, flat: ndarray) -> ndarray:
    """Triangles of the piece (joined by shared edges) that covers most of the flat map."""
    count = len(flat)
    sides = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    _, side = np.unique(sides[:, 0] * count + sides[:, 1], return_inverse=True)
    triangle = np.repeat(np.arange(len(faces)), 3)
    incidence = coo_array((np.ones(len(side)), (triangle, side))).tocsr()
    _, piece = connected_components(incidence @ incidence.T, directed=False)
    return faces[piece == np.bincount(piece, weights=triangle_areas(flat, faces)).argmax()]


def triangle_areas(flat: Float[ndarray, "v 2"], faces: Int[ndarray, "t 3"]) -> Float[ndarray, " t"]:
    """Areas on the flat map, mm^2, positive where the corners run anticlockwise."""
    a, b, c = (flat[faces[:, i]] for i in range(3))
    return 0.5 * (
        (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    )
