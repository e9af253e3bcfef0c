"""Gaussian smoothing along the cortex, as a matrix that the flat map's weights take in."""

import math

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import dijkstra

from glfa_jax.data import DataError
from glfa_jax.data.surfaces import Hemisphere, Surfaces

REACH = 3.0  # standard deviations
FULL_WIDTH = 2 * math.sqrt(2 * math.log(2))  # at half the height, in standard deviations
BLOCK_BYTES = 2**26


def smoother(surfaces: Surfaces, vertices: Int[ndarray, " used"], *, width: float) -> csr_array:
    """(used, vertices of left then right): each row a mean over the vertices around one.

    width: full width at half the height, mm. Distances go along the edges of the mesh, and neither
    across a cut of the flat surface nor into the medial wall; vertices count by their area.
    """
    sides = (surfaces.left, surfaces.right)
    rows, columns, shares = [], [], []
    offset = 0
    for side in sides:
        wanted = np.flatnonzero((vertices >= offset) & (vertices < offset + side.num_vertices))
        for row, column, share in _around(side, vertices[wanted] - offset, width / FULL_WIDTH):
            rows.append(wanted[row])
            columns.append(offset + column)
            shares.append(share)
        offset += side.num_vertices
    where = (np.concatenate(rows), np.concatenate(columns))
    shape = (len(vertices), surfaces.num_vertices)
    return csr_array(coo_array((np.concatenate(shares), where), shape))


def _around(side: Hemisphere, vertices: Int[ndarray, " n"], sigma: float):
    """Of a few vertices at a time: which of them, a vertex near it, and its share."""
    points = _points(side)
    corners = points[side.faces]
    ends = np.concatenate([side.faces[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
    ends = np.unique(np.sort(ends, axis=1), axis=0)
    lengths = np.linalg.norm(points[ends[:, 0]] - points[ends[:, 1]], axis=1)
    # An edge of no length would be none at all.
    edges = (np.maximum(lengths, 1e-6), (ends[:, 0], ends[:, 1]))
    mesh = csr_array(coo_array(edges, (len(points), len(points))))
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    triangle = 0.5 * np.linalg.norm(across, axis=1)
    area = np.bincount(side.faces.ravel(), np.repeat(triangle / 3, 3), minlength=len(points))
    step = max(BLOCK_BYTES // (8 * len(points)), 1)
    for start in range(0, len(vertices), step):
        some = vertices[start : start + step]
        far = dijkstra(mesh, directed=False, indices=some, limit=REACH * sigma)
        row, column = np.nonzero(np.isfinite(far))
        share = np.exp(-0.5 * (far[row, column] / sigma) ** 2) * area[column]
        total = np.bincount(row, share, minlength=len(some))
        yield start + row, column, share / total[row]


def _points(side: Hemisphere) -> Float[ndarray, "v 3"]:
    """In the middle of the cortex, where both of its surfaces are known."""
    known = [points for points in (side.white, side.pial) if points is not None]
    if not known:
        raise DataError(
            "data.clean.smooth_mm: distances along the cortex need data.surfaces.pial or white"
        )
    return np.mean(known, axis=0)
