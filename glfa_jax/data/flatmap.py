"""Cortex to picture and back: both flat hemispheres side by side on one square raster."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.sparse import coo_array, csr_array
from scipy.spatial import KDTree

from glfa_jax.data.surfaces import Hemisphere, Surfaces, triangle_areas

MARGIN = 1  # pixels left free around the cortex
GAP = 2  # pixels between the hemispheres: no bilinear neighbourhood can touch both


@dataclass(frozen=True, eq=False)
class FlatMap:
    """Left hemisphere on the left, dorsal up; square pixels, cropped to the visual region.

    weights: barycentric, (pixels, vertices); the rows of pixels in the mask sum to one.
    inverse: bilinear within the mask, (vertices, pixels); rows outside the region are empty.
    positions: row and column of every vertex, in pixels (pixel centres are integers), NaN outside
        the region.
    pixel_mm: edge of a pixel on the flat surface, mm.
    """

    raster: int
    weights: csr_array
    inverse: csr_array
    mask: Bool[ndarray, "h w"]
    positions: Float[ndarray, "vertices 2"]
    pixel_mm: float

    def to_map(self, values: Float[ndarray, "*t vertices"]) -> Float[ndarray, "*t h w"]:
        """Draws values over the cortex, zero outside the mask."""
        pixels = _apply(self.weights, values)
        return pixels.reshape(*values.shape[:-1], self.raster, self.raster)

    def to_surface(self, picture: Float[ndarray, "*t h w"]) -> Float[ndarray, "*t vertices"]:
        """Reads a map at the vertices, zero outside the region."""
        return _apply(self.inverse, picture.reshape(*picture.shape[:-2], self.raster**2))


def build(surfaces: Surfaces, *, raster: int) -> FlatMap:
    """The flat map of a cortex on `raster` x `raster` pixels."""
    if raster < 16:
        raise ValueError(f"raster: must be at least 16 pixels to show the cortex, got {raster}")
    sides = (surfaces.left, surfaces.right)
    low = [side.flat[side.region].min(axis=0) for side in sides]
    high = [side.flat[side.region].max(axis=0) for side in sides]
    bottom, top = min(low[0][1], low[1][1]), max(high[0][1], high[1][1])
    widths = [high[i][0] - low[i][0] for i in (0, 1)]
    last = raster - 1 - 2 * MARGIN
    pixel_mm = float(max(sum(widths) / (last - GAP), (top - bottom) / last))
    used = sum(widths) / pixel_mm + GAP
    first_column = (raster - 1 - used) / 2
    starts = (first_column, first_column + widths[0] / pixel_mm + GAP)
    first_row = (raster - 1 - (top - bottom) / pixel_mm) / 2

    positions = np.full((surfaces.num_vertices, 2), np.nan)
    weights, inverses, offset = [], [], 0
    for side, start, corner in zip(sides, starts, low, strict=True):
        points = np.stack(
            [
                first_row + (top - side.flat[:, 1]) / pixel_mm,
                start + (side.flat[:, 0] - corner[0]) / pixel_mm,
            ],
            axis=1,
        )
        weights.append(_barycentric(points, side, raster))
        inverses.append(_bilinear(points, side, weights[-1], raster))
        region = np.flatnonzero(side.region)
        positions[offset + region] = points[region]
        offset += side.num_vertices
    drawn = _stack(weights, axis=1)
    mask = (np.diff(drawn.indptr) > 0).reshape(raster, raster)
    return FlatMap(raster, drawn, _stack(inverses, axis=0), mask, positions, pixel_mm)


def _barycentric(points: ndarray, side: Hemisphere, raster: int) -> coo_array:
    """(pixels, vertices of one hemisphere): each pixel centre in the triangle that holds it."""
    faces = side.region_faces
    corners = points[faces]  # t 3 2
    first = np.ceil(corners.min(axis=1)).astype(int)
    reach = int((np.floor(corners.max(axis=1)).astype(int) - first).max()) + 1
    steps = np.stack(np.meshgrid(*[np.arange(max(reach, 1))] * 2, indexing="ij"), -1).reshape(-1, 2)
    candidates = (first[:, None] + steps).reshape(-1, 2)
    triangle = np.repeat(np.arange(len(faces)), len(steps))
    inside = ((candidates >= 0) & (candidates < raster)).all(axis=1)
    candidates, triangle = candidates[inside], triangle[inside]
    shares = _shares(candidates, corners[triangle])
    # A pixel on a shared edge lies in two triangles that agree on its value: one is kept.
    held = np.flatnonzero(shares.min(axis=1) >= -1e-9)
    pixel, keep = np.unique(candidates[held] @ [raster, 1], return_index=True)
    held = held[keep]
    shares = np.maximum(shares[held], 0)
    shares /= shares.sum(axis=1, keepdims=True)
    columns = faces[triangle[held]]
    return coo_array(
        (shares.ravel(), (np.repeat(pixel, 3), columns.ravel())), (raster**2, len(points))
    )


def _shares(point: ndarray, corners: ndarray) -> ndarray:
    """Barycentric coordinates (n, 3) of points in triangles."""
    count = len(point)
    stacked = np.concatenate([corners.reshape(-1, 2), point])
    index = np.arange(3 * count).reshape(count, 3)
    whole = triangle_areas(stacked, index)
    shares = []
    for corner in range(3):
        replaced = index.copy()
        replaced[:, corner] = 3 * count + np.arange(count)
        shares.append(triangle_areas(stacked, replaced) / whole)
    return np.stack(shares, axis=1)


def _bilinear(points: ndarray, side: Hemisphere, weights: coo_array, raster: int) -> coo_array:
    """(vertices, pixels): weights of the four pixels around a vertex, those in the mask only."""
    mask = np.zeros(raster**2, bool)
    mask[weights.coords[0]] = True
    vertex = np.flatnonzero(side.region)
    base = np.floor(points[vertex]).astype(int)
    part = points[vertex] - base
    pixels, shares = [], []
    for step in ((0, 0), (0, 1), (1, 0), (1, 1)):
        row, column = np.clip(base + step, 0, raster - 1).T
        pixel = row * raster + column
        share = np.prod(np.where(step, part, 1 - part), axis=1)
        pixels.append(pixel)
        shares.append(share * mask[pixel])
    pixels, shares = np.stack(pixels, 1), np.stack(shares, 1)
    # A vertex on the rim may have no drawn pixel around it: it takes the nearest one.
    alone = shares.sum(axis=1) < 1e-6
    drawn = np.flatnonzero(mask)
    _, nearest = KDTree(np.stack(np.divmod(drawn, raster), 1)).query(points[vertex[alone]])
    pixels[alone, 0] = np.take(drawn, nearest)
    shares[alone] = (1, 0, 0, 0)
    shares /= shares.sum(axis=1, keepdims=True)
    rows = np.repeat(vertex, 4)
    return coo_array((shares.ravel(), (rows, pixels.ravel())), (len(points), raster**2))


def _stack(parts: list[coo_array], *, axis: int) -> csr_array:
    """Two matrices side by side along an axis, without explicit zeros."""
    shape, offset = [*_size(parts[0])], 0
    shape[axis] = sum(_size(part)[axis] for part in parts)
    data, coords = [], []
    for part in parts:
        shift = np.zeros((2, 1), int)
        shift[axis] = offset
        data.append(part.data)
        coords.append(np.stack(part.coords) + shift)
        offset += _size(part)[axis]
    stacked = coo_array((np.concatenate(data), tuple(np.concatenate(coords, 1))), shape).tocsr()
    stacked.eliminate_zeros()
    return csr_array(stacked, dtype=np.float32)


def _size(matrix: Any) -> tuple[int, int]:
    return matrix.shape


def _apply(matrix: csr_array, values: ndarray) -> ndarray:
    length = _size(matrix)[1]
    if values.shape[-1] != length:
        raise ValueError(f"last axis must have length {length}, has {values.shape[-1]}")
    flat = values.reshape(-1, values.shape[-1])
    return np.ascontiguousarray((matrix @ flat.T).T).reshape(*values.shape[:-1], -1)
