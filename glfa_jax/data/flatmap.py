"""Scans to image and back: both flat hemispheres side by side on one square map."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Int8
from numpy import ndarray
from scipy.sparse import coo_array, csr_array
from scipy.spatial import KDTree

from glfa_jax import config
from glfa_jax.data import DataError, regions, surfaces
from glfa_jax.data.gifti import SIDES
from glfa_jax.data.layouts import layout_of
from glfa_jax.data.plane import side_by_side
from glfa_jax.data.surfaces import Hemisphere, Surfaces, triangle_areas

MARGIN = 1  # pixels left free around the cortex
SMALLEST_MAP = 16


@dataclass(frozen=True, eq=False)
class FlatMap:
    """Left hemisphere on the left, dorsal up, cropped to the visual region.

    A scan's values are the vertices of both hemispheres, left then right, or the pixels of a
    image of the flat map, row by row.

    weights: (pixels, values); the rows of pixels in the mask sum to one. Barycentric for vertices,
        bilinear for an image.
    inverse: bilinear within the mask, (values, pixels); rows outside the region are empty.
    positions: row and column of every value, in pixels (pixel centres are integers), NaN outside
        the region.
    pixel_mm: edge of a (square) pixel on the flat surface, mm; None where an image was resized.
    sides: number of values of the left and right hemisphere, or of the image.
    walls: vertices that the flat surface of each side left out; none where there is an image.
    """

    map_size: int
    weights: csr_array
    inverse: csr_array
    mask: Bool[ndarray, "h w"]
    positions: Float[ndarray, "values 2"]
    pixel_mm: float | None
    sides: tuple[int, ...]
    walls: tuple[Bool[ndarray, " v"], ...] = ()

    @cached_property
    def used(self) -> Bool[ndarray, " values"]:
        """Values that some pixel draws on; only these need be finite."""
        drawn = np.zeros(sum(self.sides), bool)
        drawn[self.weights.indices] = True
        return drawn

    def to_map(self, values: Float[ndarray, "*t values"]) -> Float[ndarray, "*t h w"]:
        """Draws values over the cortex, zero outside the mask."""
        pixels = _apply(self.weights, values)
        return pixels.reshape(*values.shape[:-1], self.map_size, self.map_size)

    def draw_kinds(self, kinds: Int[ndarray, " values"]) -> Int[ndarray, "h w"]:
        """Of whole numbers from 0, such as areas, the one that most of a pixel's signal is drawn
        from; −1 outside the mask."""
        member = csr_array((np.ones(len(kinds)), (np.arange(len(kinds)), kinds)))
        shares: Any = self.weights @ member
        drawn = np.full(self.mask.shape, -1)
        drawn[self.mask] = shares.toarray()[self.mask.ravel()].argmax(1)
        return drawn

    def to_surface(self, image: Float[ndarray, "*t h w"]) -> Float[ndarray, "*t values"]:
        """Reads a map where the values lie, zero outside the region."""
        return _apply(self.inverse, image.reshape(*image.shape[:-2], self.map_size**2))


def of(data: config.Data) -> FlatMap:
    """The flat map that a study's scans are drawn on."""
    if data.map_size < SMALLEST_MAP:
        raise DataError(f"data.map_size: must be at least {SMALLEST_MAP}, is {data.map_size}")
    layout = layout_of(data)
    if layout.mask is None:
        return build(surfaces.load(data), map_size=data.map_size)
    if data.region is not None and data.region.mask is None:
        raise DataError(
            f"data.region.labels: scans of layout {layout.name} are images, not vertices; give "
            f"data.region.mask, or leave out data.region for {layout.mask} in data.root"
        )
    path = data.region.mask if data.region else data.root / layout.mask
    assert path is not None  # the schema asks for labels or mask
    return from_image(regions.image(path), map_size=data.map_size)


def build(surfaces: Surfaces, *, map_size: int) -> FlatMap:
    """The flat map of a cortex on `map_size` x `map_size` pixels, cropped to its region."""
    _check_map_size(map_size)
    hemispheres = (surfaces.left, surfaces.right)
    plane = side_by_side(
        (surfaces.left.flat, surfaces.right.flat),
        shown=(surfaces.left.region, surfaces.right.region),
        shape=(map_size, map_size),
        margin=MARGIN,
    )
    positions = np.full((surfaces.num_vertices, 2), np.nan)
    weights, inverses, offset = [], [], 0
    for name, side, points in zip(SIDES, hemispheres, plane.points, strict=True):
        weights.append(_barycentric(points, side, map_size))
        mask = np.zeros(map_size**2, bool)
        mask[weights[-1].coords[0]] = True
        if not mask.any():
            raise DataError(
                f"data.map_size: at {map_size} pixels the region's {name} hemisphere falls between "
                "them; choose more"
            )
        region = np.flatnonzero(side.region)
        inverses.append(_bilinear(points[region], region, side.num_vertices, mask))
        positions[offset + region] = points[region]
        offset += side.num_vertices
    drawn = _stack(weights, axis=1)
    return FlatMap(
        map_size=map_size,
        weights=drawn,
        inverse=_stack(inverses, axis=0),
        mask=_rows(drawn).reshape(map_size, map_size),
        positions=positions,
        pixel_mm=plane.pixel_mm,
        sides=(surfaces.left.num_vertices, surfaces.right.num_vertices),
        walls=(~surfaces.left.on_flat, ~surfaces.right.on_flat),
    )


def from_image(mask: Int8[ndarray, "h w"], *, map_size: int) -> FlatMap:
    """The flat map of scans that are images already: the region's bounding box, resized.

    mask: 1 region, -1 other cortex, 0 no cortex. The signal is interpolated bilinearly as torch
    does with align_corners=False, no smoothing before; neighbours that are no cortex are left out.
    A pixel is in the mask where the pixel of the image nearest to it is 1.
    """
    _check_map_size(map_size)
    rows, columns = np.nonzero(mask == 1)
    if not len(rows):
        raise DataError("mask: has no pixel of the region (1)")
    corner = np.array([rows.min(), columns.min()])
    box = np.array([rows.max(), columns.max()]) + 1 - corner
    # Both steps of pixel i on each axis: its neighbours before and behind, and their shares.
    places, shares, nearest = zip(*(_resized(int(size), map_size) for size in box), strict=True)
    drawn = mask[corner[0] + nearest[0][:, None], corner[1] + nearest[1]] == 1
    row, column = np.nonzero(drawn)
    source_row = corner[0] + places[0][row][:, [0, 0, 1, 1]]
    source_column = corner[1] + places[1][column][:, [0, 1, 0, 1]]
    share = shares[0][row][:, [0, 0, 1, 1]] * shares[1][column][:, [0, 1, 0, 1]]
    share *= mask[source_row, source_column] != 0
    share /= share.sum(axis=1, keepdims=True)
    pixel = np.repeat(row * map_size + column, 4)
    source = (source_row * mask.shape[1] + source_column).ravel()
    weights = coo_array((share.ravel(), (pixel, source)), (map_size**2, mask.size))

    points = (np.stack([rows, columns], 1) - corner + 0.5) * (map_size / box) - 0.5
    region = rows * mask.shape[1] + columns
    positions = np.full((mask.size, 2), np.nan)
    positions[region] = points
    return FlatMap(
        map_size=map_size,
        weights=_stack([weights], axis=0),
        inverse=_stack([_bilinear(points, region, mask.size, drawn.ravel())], axis=0),
        mask=drawn,
        positions=positions,
        pixel_mm=None,
        sides=(mask.size,),
    )


def _resized(size: int, map_size: int) -> tuple[ndarray, ndarray, ndarray]:
    """One axis: the two neighbours (map_size, 2) of each pixel, their shares, the nearest one."""
    index = np.arange(map_size)
    centre = np.clip((index + 0.5) * (size / map_size) - 0.5, 0, size - 1)
    before = np.floor(centre).astype(int)
    behind = centre - before
    places = np.stack([before, np.minimum(before + 1, size - 1)], 1)
    # In whole numbers, so that no rounding decides between two pixels equally near.
    return places, np.stack([1 - behind, behind], 1), (2 * index + 1) * size // (2 * map_size)


def _check_map_size(map_size: int) -> None:
    if map_size < SMALLEST_MAP:
        raise ValueError(
            f"map_size: must be at least {SMALLEST_MAP} pixels to show the cortex, got {map_size}"
        )


def _rows(matrix: csr_array) -> Bool[ndarray, " r"]:
    """Rows that hold any weight."""
    return np.diff(matrix.indptr) > 0


def _barycentric(points: ndarray, side: Hemisphere, map_size: int) -> coo_array:
    """(pixels, vertices of one hemisphere): each pixel centre in the triangle that holds it."""
    faces = side.region_faces
    corners = points[faces]  # t 3 2
    first = np.maximum(np.ceil(corners.min(axis=1)).astype(int), 0)
    last = np.minimum(np.floor(corners.max(axis=1)).astype(int), map_size - 1)
    size = np.maximum(last - first + 1, 0)  # t 2: the pixels of every triangle's box
    count = size.prod(axis=1)
    triangle = np.repeat(np.arange(len(faces)), count)
    step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    candidates = first[triangle] + np.stack(np.divmod(step, size[triangle, 1]), 1)
    shares = _shares(candidates, corners[triangle])
    # A pixel on a shared edge lies in two triangles that agree on its value: one is kept.
    held = np.flatnonzero(shares.min(axis=1) >= -1e-9)
    pixel, keep = np.unique(candidates[held] @ [map_size, 1], return_index=True)
    held = held[keep]
    shares = np.maximum(shares[held], 0)
    shares /= shares.sum(axis=1, keepdims=True)
    columns = faces[triangle[held]]
    return coo_array(
        (shares.ravel(), (np.repeat(pixel, 3), columns.ravel())), (map_size**2, len(points))
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


def _bilinear(points: ndarray, owners: ndarray, count: int, mask: ndarray) -> coo_array:
    """(values, pixels): weights of the four pixels around each point, those in the mask only.

    owners: the value, one of `count`, that lies at each point.
    """
    map_size = math.isqrt(mask.size)
    base = np.floor(points).astype(int)
    part = points - base
    pixels, shares = [], []
    for step in ((0, 0), (0, 1), (1, 0), (1, 1)):
        row, column = np.clip(base + step, 0, map_size - 1).T
        pixel = row * map_size + column
        share = np.prod(np.where(step, part, 1 - part), axis=1)
        pixels.append(pixel)
        shares.append(share * mask[pixel])
    pixels, shares = np.stack(pixels, 1), np.stack(shares, 1)
    # A point on the rim may have no drawn pixel around it: it takes the nearest one.
    alone = shares.sum(axis=1) < 1e-6
    drawn = np.flatnonzero(mask)
    _, nearest = KDTree(np.stack(np.divmod(drawn, map_size), 1)).query(points[alone])
    pixels[alone, 0] = np.take(drawn, nearest)
    shares[alone] = (1, 0, 0, 0)
    shares /= shares.sum(axis=1, keepdims=True)
    return coo_array((shares.ravel(), (np.repeat(owners, 4), pixels.ravel())), (count, map_size**2))


def _stack(parts: list[coo_array], *, axis: int) -> csr_array:
    """Matrices side by side along an axis, without explicit zeros."""
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
