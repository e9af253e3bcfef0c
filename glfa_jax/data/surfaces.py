"""Cortical surfaces as data: flat coordinates, triangles, and which vertices are visual cortex."""

from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from glfa_jax import config
from glfa_jax.data import DataError, hcp, regions
from glfa_jax.data.gifti import SIDES, Side, open_gifti

# The rule for the visual region on fsaverage5: everything behind this plane of the inflated surface
# (mm, the axis points to the front). It takes in the occipital lobe and the posterior ends of the
# temporal and parietal lobes.
POSTERIOR_OF = -40.0
# Triangles the flattening of fsaverage5 tore or stretched: an edge longer than this on the flat map
# (mm) ...
LONGEST_FLAT_EDGE = 8.0
# ... or this many times as long as on the pial surface.
GREATEST_STRETCH = 3.0
# On a mesh of unknown density and scale: this many times the median edge, or the median stretch.
# (The limits above are 2.9 and 3.3 times the medians of fsaverage5.)
TORN = 4.0
# The third coordinate of a flat surface may vary by this share of its extent.
FLATNESS = 1e-3
CLEARLY = 10.0  # mm; surfaces that some program centred lie nearer to each other
# Spaces of single subjects: no surface fits them all.
OWN_SPACES = ("T1w", "T2w", "individual", "func", "bold", "boldref", "orig")


@dataclass(frozen=True, eq=False)
class Hemisphere:
    """One hemisphere; all coordinates in mm, vertices in the order of the time series.

    faces: triangles of the flat surface that were neither cut nor stretched nor folded over.
    region: vertices of the visual region; on fsaverage5 by default one compact patch.
    region_faces: the triangles of `faces` whose three corners lie in the region.
    pial, white: None where they were not given; volumes are sampled between them.
    """

    flat: Float[ndarray, "v 2"]
    faces: Int[ndarray, "t 3"]
    region: Bool[ndarray, " v"]
    region_faces: Int[ndarray, "r 3"]
    pial: Float[ndarray, "v 3"] | None
    white: Float[ndarray, "v 3"] | None
    inflated: Float[ndarray, "v 3"] | None

    @property
    def num_vertices(self) -> int:
        return len(self.flat)

    @property
    def on_flat(self) -> Bool[ndarray, " v"]:
        """Vertices that some sound triangle of the flat surface holds; the medial wall has none."""
        kept = np.zeros(self.num_vertices, bool)
        kept[self.faces] = True
        return kept


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


def load(data: config.Data) -> Surfaces:
    """The mesh that the scans lie on, or are sampled to, with its region.

    fsaverage5 is built in and serves volumes of a standard space too (its coordinates are those of
    MNI305, some millimetres off MNI152). Every other mesh is read from `data.surfaces`. The region
    is `data.region`: all pieces of it that hold a whole triangle of the flat surface.
    """
    space = data.space
    if data.surfaces is not None:
        hcp.check_there(data.surfaces, data.region)
        mesh = _given(data.surfaces, space)
    elif space == "fsaverage5" or (is_volume(space) and space not in OWN_SPACES):
        mesh = fsaverage5()
        if data.region is None:
            return mesh
    else:
        raise DataError(f"data.surfaces.flat: {_where_from(space)}")
    if data.region is None:
        raise DataError(
            "data.region: must name labels (a parcellation) or mask (an image) for every mesh but "
            "the built-in fsaverage5, whose posterior cortex is the default"
        )
    hemispheres = (mesh.left, mesh.right)
    if data.region.labels is not None:
        wanted = regions.areas(
            data.region.labels,
            names=data.region.areas,
            sides=(mesh.left.num_vertices, mesh.right.num_vertices),
        )
    else:
        assert data.region.mask is not None  # the schema asks for one of the two
        wanted = regions.from_image(
            regions.image(data.region.mask),
            flats=(mesh.left.flat, mesh.right.flat),
            cortex=(mesh.left.on_flat, mesh.right.on_flat),
        )
    parts = np.split(wanted, [mesh.left.num_vertices])
    left, right = map(_with_region, hemispheres, parts, SIDES)
    return Surfaces(mesh.space, left, right)


def is_volume(space: str) -> bool:
    """Whether scans of a BIDS space are volumes; the names of surface templates are few."""
    return not space.startswith(("fs", "onavg"))


def mesh_of(data: config.Data) -> str | None:
    """The space of the vertices that maps are drawn from, as BIDS names it: of volumes, that of the
    mesh that they are sampled to, None where `data.surfaces` holds that, which does not say."""
    if not is_volume(data.space):
        return data.space
    return "fsaverage5" if data.surfaces is None else None


def _where_from(space: str) -> str:
    if space in OWN_SPACES or space == "fsnative":
        return (
            f"space {space} is each subject's own, no flat surface fits them all; prepare the "
            "scans in fsaverage5, fsLR or MNI152NLin2009cAsym"
        )
    needs = f"space {space} needs two flat surfaces as GIFTI, left first"
    if space == "fsLR":
        return (
            f"{needs}: {' and '.join(hcp.surface_name(side, 'flat') for side in SIDES)} of the HCP "
            f"S1200 group average; {hcp.to_type('OUT')} writes them"
        )
    if space == "fsLR59k":
        return (
            f"{needs}: those of any subject of the HCP, such as MNINonLinear/fsaverage_LR59k/"
            "100610.L.flat.59k_fs_LR.surf.gii and 100610.R.flat.59k_fs_LR.surf.gii"
        )
    if space.startswith("fsaverage"):
        return (
            f"{needs}: flat_left and flat_right of nilearn.datasets.fetch_surf_fsaverage('{space}')"
        )
    return f"{needs}: FreeSurfer's mris_flatten makes them, mris_convert writes them as GIFTI"


@cache
def fsaverage5() -> Surfaces:
    """The fsaverage5 cortex from nilearn's wheel: 10,242 vertices a hemisphere, no network.

    Visual region: vertices behind y = -40 mm on the inflated surface, as far as sound triangles of
    the flat surface hold them together in one piece (largest piece by area on the flat map).
    """
    return Surfaces("fsaverage5", _built_in("left"), _built_in("right"))


def _built_in(side: Side) -> Hemisphere:
    flat, flat_faces = _read(_in_wheel(f"flat_{side}.gii.gz"), side)
    pial, white, inflated = (
        _read(_in_wheel(f"{kind}_{side}.gii.gz"), side)[0] for kind in ("pial", "white", "infl")
    )
    faces = _sound(flat, flat_faces, pial, longest=LONGEST_FLAT_EDGE, stretch=GREATEST_STRETCH)
    behind = inflated[:, 1] < POSTERIOR_OF
    region_faces = _largest_piece(faces[behind[faces].all(axis=1)], flat[:, :2])
    region = np.zeros(len(flat), bool)
    region[region_faces] = True
    return Hemisphere(
        flat[:, :2].copy(), faces, region, region_faces, pial=pial, white=white, inflated=inflated
    )


def curvature() -> Float[ndarray, " vertices"]:
    """Mean curvature of the average fsaverage5 cortex, 1/mm, left then right; positive in sulci."""
    images = (open_gifti(_in_wheel(f"curv_{side}.gii.gz"), side=side) for side in SIDES)
    return np.concatenate([image.darrays[0].data for image in images]).astype(np.float64)


def _in_wheel(name: str) -> Path:
    # The package is located, not imported: importing nilearn takes seconds and only files are used.
    spec = find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "nilearn is not installed; its wheel holds the fsaverage5 surfaces"
        )
    return Path(spec.origin).parent / "datasets" / "data" / "fsaverage5" / name


def _given(files: config.Surfaces, space: str) -> Surfaces:
    """The user's mesh, all of it taken for the region."""
    if is_volume(space) and (files.pial is None or files.white is None):
        raise DataError(
            f"data.surfaces: volumes (space {space}) are sampled between the white and the pial "
            "surface; both must be named beside flat"
        )
    sides = []
    for index, side in enumerate(SIDES):
        path = files.flat[index]
        flat, flat_faces = _read(path, side)
        _check_flat(path, flat[np.unique(flat_faces)])
        others = {
            kind: _read_same(pair[index], side, like=path, count=len(flat)) if pair else None
            for kind, pair in (("pial", files.pial), ("white", files.white))
        }
        pial = others["pial"]
        on_map = _edges(flat[:, :2], flat_faces)
        stretch = 0.0
        if pial is not None:
            on_cortex = np.maximum(_edges(pial, flat_faces), 1e-6)
            stretch = TORN * float(np.median(on_map / on_cortex))
        longest = TORN * float(np.median(on_map))
        faces = _sound(flat, flat_faces, pial, longest=longest, stretch=stretch)
        if not len(faces):
            raise DataError(f"{path}: has no triangle with an area")
        region = np.zeros(len(flat), bool)
        region[faces] = True
        sides.append(Hemisphere(flat[:, :2].copy(), faces, region, faces, inflated=None, **others))
    for kind in ("pial", "white"):
        pair = getattr(files, kind)
        if pair and np.diff([getattr(side, kind)[:, 0].mean() for side in sides]) < -CLEARLY:
            raise DataError(f"{pair[0]}: lies to the right of {pair[1].name}; left comes first")
    return Surfaces(space, *sides)


def _check_flat(path: Path, points: Float[ndarray, "u 3"]) -> None:
    low, high = points.min(axis=0), points.max(axis=0)
    if high[2] - low[2] > FLATNESS * max(high[:2] - low[:2]):
        raise DataError(
            f"{path}: not a flat surface: its third coordinate goes from {low[2]:.1f} to "
            f"{high[2]:.1f} mm"
        )


def _read(path: Path, side: Side) -> tuple[Float[ndarray, "v 3"], Int[ndarray, "t 3"]]:
    image = open_gifti(path, side=side)
    try:
        points, faces = (
            image.get_arrays_from_intent(f"NIFTI_INTENT_{kind}")[0].data
            for kind in ("POINTSET", "TRIANGLE")
        )
        points, faces = points.astype(np.float64), faces.astype(np.int64)
        good = points.shape[1:] == faces.shape[1:] == (3,)
        good = good and 0 <= faces.min() <= faces.max() < len(points)
    except Exception:  # whatever is wrong with the file, the sentence is the same
        good = False
    if not good:
        raise DataError(f"{path}: no surface GIFTI: needs points (POINTSET) and their triangles")
    if not np.isfinite(points[faces]).all():
        raise DataError(f"{path}: has coordinates that are not finite")
    return points, faces


def _read_same(path: Path, side: Side, *, like: Path, count: int) -> Float[ndarray, "v 3"]:
    """Another surface of the same mesh."""
    points, _ = _read(path, side)
    if len(points) != count:
        raise DataError(f"{path}: has {len(points)} vertices, {like.name} of the same mesh {count}")
    return points


def _sound(
    flat: ndarray, faces: ndarray, pial: ndarray | None, *, longest: float, stretch: float
) -> Int[ndarray, "t 3"]:
    """Triangles without torn edges that face the same way as most do."""
    on_map = _edges(flat[:, :2], faces)
    limit = longest if pial is None else np.minimum(longest, stretch * _edges(pial, faces))
    faces = faces[~(on_map > limit).any(axis=1)]
    areas = triangle_areas(flat[:, :2], faces)
    return faces[areas * np.sign(np.median(areas)) > 0] if len(faces) else faces


def _edges(points: ndarray, faces: ndarray) -> ndarray:
    """Lengths of the three edges of every triangle."""
    corners = points[faces]
    return np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=-1)


def _with_region(side: Hemisphere, wanted: Bool[ndarray, " v"], name: Side) -> Hemisphere:
    """Vertices without any whole triangle inside the region drop out."""
    region_faces = side.faces[wanted[side.faces].all(axis=1)]
    if not len(region_faces):
        raise DataError(
            f"data.region: no triangle of the {name} flat surface lies wholly in the region"
        )
    region = np.zeros(side.num_vertices, bool)
    region[region_faces] = True
    return replace(side, region=region, region_faces=region_faces)


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
