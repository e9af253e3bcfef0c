"""The simulated cortex: canonical coordinates of the visual region and smooth fields over it.

Canonical coordinates are mm on the flat map: `forward` from the posterior border of the region,
`up` as on the map. The right hemisphere is mirrored, so that one functional map serves both.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.sparse import csr_array
from scipy.spatial import KDTree

from glfa_jax.data.surfaces import fsaverage5

# Borders between the parts and the width of the transitions, as fractions of the region's depth.
EARLY_END, HIGHER_START, TRANSITION = 0.36, 0.66, 0.03


@dataclass(frozen=True, eq=False)
class Cortex:
    """The r vertices of the visual region, left hemisphere first.

    vertices: index of each among the vertices of both hemispheres, left then right.
    side: -1 left, +1 right hemisphere.
    canonical: forward and up, mm.
    depth, low, high: extent of the region in mm (forward from 0; up from low to high).
    """

    num_vertices: tuple[int, int]
    vertices: Int[ndarray, " r"]
    side: Int[ndarray, " r"]
    canonical: Float[ndarray, "r 2"]
    depth: float
    low: float
    high: float

    def parts(self, canonical: Float[ndarray, "r 2"]) -> Float[ndarray, "r 3"]:
        """How much a place belongs to the early, middle and higher part; the three add up to 1."""
        fraction = canonical[:, 0] / self.depth
        beyond_early = 1 / (1 + np.exp(-(fraction - EARLY_END) / TRANSITION))
        beyond_middle = 1 / (1 + np.exp(-(fraction - HIGHER_START) / TRANSITION))
        beyond_middle = beyond_middle * beyond_early
        return np.stack([1 - beyond_early, beyond_early - beyond_middle, beyond_middle], axis=1)

    def of_each_side(self, values: Float[ndarray, "r twice ..."]) -> Float[ndarray, "r once ..."]:
        """The first half of fields in the left hemisphere, the second in the right one."""
        left, right = np.split(values, 2, axis=1)
        is_left = (self.side < 0).reshape(-1, *[1] * (values.ndim - 1))
        return np.where(is_left, left, right)

    def on_the_mesh(
        self, values: Float[ndarray, "n r"]
    ) -> tuple[Float[ndarray, "n left"], Float[ndarray, "n right"]]:
        """All vertices of both hemispheres, in 32 bits; zero outside the region."""
        whole = np.zeros((len(values), sum(self.num_vertices)), np.float32)
        whole[:, self.vertices] = values
        left, right = np.split(whole, [self.num_vertices[0]], axis=1)
        return left, right

    def smoother(self, sigma: float) -> csr_array:
        """Gaussian smoothing within hemispheres (sigma in mm) that keeps unit variance."""
        # The hemispheres are put too far apart to mix.
        points = self.canonical + np.stack([1e4 * self.side, np.zeros(len(self.side))], axis=1)
        tree = KDTree(points)
        near = tree.sparse_distance_matrix(tree, 3 * sigma, output_type="coo_matrix")
        weight = np.exp(-0.5 * (near.data / sigma) ** 2)
        size = np.sqrt(np.bincount(near.row, weight**2))
        weight = (weight / size[near.row]).astype(np.float32)
        return csr_array((weight, (near.row, near.col)), shape=near.shape)


@cache
def visual_cortex() -> Cortex:
    """The visual region of fsaverage5 (rule: `glfa_jax.data.surfaces.fsaverage5`)."""
    surfaces = fsaverage5()
    vertices, side, canonical = [], [], []
    for sign, hemisphere in ((-1, surfaces.left), (1, surfaces.right)):
        index = np.flatnonzero(hemisphere.region)
        x, y = hemisphere.flat[index].T
        forward = x.max() - x if sign < 0 else x - x.min()
        vertices.append(index + (sign > 0) * surfaces.left.num_vertices)
        side.append(np.full(len(index), sign))
        canonical.append(np.stack([forward, y], axis=1))
    places = np.concatenate(canonical)
    return Cortex(
        num_vertices=(surfaces.left.num_vertices, surfaces.right.num_vertices),
        vertices=np.concatenate(vertices),
        side=np.concatenate(side),
        canonical=places,
        depth=float(places[:, 0].max()),
        low=float(places[:, 1].min()),
        high=float(places[:, 1].max()),
    )


@dataclass(frozen=True, eq=False)
class SmoothField:
    """Random functions of a place on the map, Gaussian with unit variance and zero mean.

    A sum of cosines with random directions (random Fourier features of the Gaussian kernel), so a
    field has a value at every place and not at vertices only.
    """

    frequencies: Float[ndarray, "2 m"]
    phases: Float[ndarray, " m"]
    amplitudes: Float[ndarray, "m k"]

    def __call__(self, places: Float[ndarray, "v 2"]) -> Float[ndarray, "v k"]:
        return np.cos(places @ self.frequencies + self.phases) @ self.amplitudes

    def slopes(self, places: Float[ndarray, "v 2"]) -> Float[ndarray, "v k 2"]:
        """How the fields change going forward and up, per mm."""
        change = -np.sin(places @ self.frequencies + self.phases)
        along = [(change * frequency) @ self.amplitudes for frequency in self.frequencies]
        return np.stack(along, axis=-1)


def smooth_field(
    rng: np.random.Generator, *, count: int, scale: float, waves: int = 256
) -> SmoothField:
    """`count` independent fields; places `d` mm apart correlate by exp(-d^2 / (2 scale^2))."""
    return SmoothField(
        frequencies=rng.standard_normal((2, waves)) / scale,
        phases=rng.uniform(0, 2 * np.pi, waves),
        amplitudes=rng.standard_normal((waves, count)) * np.sqrt(2 / waves),
    )
