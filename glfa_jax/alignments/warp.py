"""Maps warped by a smooth displacement of the cortex, fitted with or without shared clips."""

from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from glfa_jax.alignments import warping
from glfa_jax.alignments.amplitude import Gain, restoring
from glfa_jax.alignments.connectivity import connectivity, parcels
from glfa_jax.alignments.protocol import Alignment, Group
from glfa_jax.alignments.registry import register
from glfa_jax.alignments.volumes import standardised, volumes_of
from glfa_jax.errors import InputError

STEPS = 300
LEARNING_RATE = 0.01  # of a grid's cell
# Time courses are compared by so many of their principal components, which keeps a step small.
COMPONENTS = 64
# Displacing the maps moves the parcels with them, so their means are taken anew so often.
ROUNDS = 10


class _Warp(nn.Module):
    """The identity at first, with all of the left and of the right half as cortex."""

    height: int
    width: int
    grid: int

    @nn.compact
    def __call__(self, x: Float[Array, "*b h w"]) -> Float[Array, "*b h w"]:
        everywhere = warping.hemispheres(np.ones((self.height, self.width), bool))
        cortex = self.param("cortex", lambda _: jnp.asarray(everywhere))
        nodes = self.param("displacement", nn.initializers.zeros, (2, 2, self.grid, self.grid))
        warped = warping.warp(x, warping.displacement(nodes, cortex), cortex)
        return Gain(self.height, self.width, name="amplitude")(warped)


@register("warp")
@dataclass(frozen=True)
class Warp(Alignment):
    """y_p = g_p x_(p + u(p)), bilinear among the cortex of p's hemisphere, u a cubic spline.

    Minimises -mean_p r_p + stiffness * |differences of u between neighbouring nodes|^2, in cells of
    the grid, mean over nodes. r_p with targets: correlation over time of the warped maps with
    them. Without: correlation of the pixel's connectivity with the group's, over parcels; a pixel's
    connectivity is its correlation over time with the mean of every parcel, so that any fMRI
    serves. g_p gives a pixel back its amplitude, for between pixels noise averages out. Source of
    the idea: connectivity hyperalignment (Guntupalli et al. 2018).

    grid: nodes of u along each side of a hemisphere's half of the map. parcels: about how many, of
    both hemispheres together.
    """

    grid: int = 10
    stiffness: float = 0.03
    parcels: int = 70

    needs = "unlabelled"

    def layer(self, maps_shape, *, box=None):
        return _Warp(*maps_shape, self.grid)

    def solve(self, maps, *, targets, group, settings, seed):
        volumes, cortex = volumes_of(maps), warping.hemispheres(group.mask)
        nodes = self.nodes(volumes, targets=targets, group=group, seed=seed)
        gain = restoring(volumes, fitted=_warped(volumes, nodes=nodes, cortex=cortex))
        return {"displacement": nodes, "cortex": cortex, "amplitude": {"gain": gain}}

    def nodes(
        self,
        volumes: Float[np.ndarray, "t h w"],
        *,
        targets: Float[np.ndarray, "n w h w2"] | None,
        group: Group,
        seed: int,
    ) -> Float[Array, "2 2 g g"]:
        """The displacement at the nodes of the grid, in pixels; see `warping.displacement`."""
        own, cortex = standardised(volumes), warping.hemispheres(group.mask)
        descend = partial(_descend, pixels=np.flatnonzero(group.mask), stiffness=self.stiffness)
        nodes = jnp.zeros((2, 2, self.grid, self.grid))
        if targets is not None:
            wanted = standardised(volumes_of(targets, what="targets"))
            sources, wanted = _components(own, wanted=wanted)
            return descend(nodes, sources, wanted=wanted, cortex=cortex, steps=STEPS)
        drawn = parcels(cortex, count=self.parcels)
        wanted = _connectivity_of(group, drawn)
        for _ in range(ROUNDS):
            warped = _warped(own, nodes=nodes, cortex=cortex)
            sources = connectivity(own, warped=warped, parcels=drawn)
            steps = STEPS // ROUNDS
            nodes = descend(nodes, sources, wanted=wanted, cortex=cortex, steps=steps)
        return nodes

    def shift(self, params, *, maps_shape):
        found = warping.displacement(params["displacement"], params["cortex"])
        return np.moveaxis(np.asarray(found), 0, -1)


def _warped(
    volumes: Float[np.ndarray, "t h w"],
    *,
    nodes: Float[Array, "2 2 g g"],
    cortex: Float[np.ndarray, "2 h w"],
) -> Float[np.ndarray, "t h w"]:
    shift = warping.displacement(nodes, jnp.asarray(cortex))
    return np.asarray(jax.jit(warping.warp)(volumes, shift, cortex))


def _connectivity_of(group: Group, drawn: Float[np.ndarray, "k h w"]) -> Float[np.ndarray, "k h w"]:
    """The mean over the group's subjects."""
    if group.connectivity is not None:
        if group.connectivity.shape != drawn.shape:
            raise InputError(
                f"group: has the connectivity with {len(group.connectivity)} parcels, but warp is "
                f"asked to take {len(drawn)} (parcels)"
            )
        return group.connectivity
    if not group.maps.size:
        raise InputError(
            "group: has no maps, but warp is fitted to those of a group where there are no targets"
        )
    found = np.zeros(drawn.shape, np.float32)
    for maps in group.maps:
        found += connectivity_of(maps, drawn) / len(group.maps)
    return found


def connectivity_of(
    maps: Float[np.ndarray, "n w h w2"], drawn: Float[np.ndarray, "k h w2"]
) -> Float[np.ndarray, "k h w2"]:
    """Of one subject's maps with the parcels `drawn`."""
    volumes = standardised(volumes_of(maps, what="group"))
    return connectivity(volumes, warped=volumes, parcels=drawn)


def _components(
    own: Float[np.ndarray, "t h w"], *, wanted: Float[np.ndarray, "t h w"]
) -> tuple[Float[np.ndarray, "c h w"], Float[np.ndarray, "c h w"]]:
    """Both in the basis of the principal components of `wanted` over time."""
    flat = wanted.reshape(len(wanted), -1)
    _, vectors = np.linalg.eigh(flat @ flat.T)
    basis = vectors[:, -COMPONENTS:].T
    own, wanted = (np.tensordot(basis, volumes, 1) for volumes in (own, wanted))
    return own, wanted


@partial(jax.jit, static_argnames="steps")
def _descend(
    nodes: Float[Array, "2 2 g g"],
    sources: Float[Array, "c h w"],
    *,
    wanted: Float[Array, "c h w"],
    cortex: Float[Array, "2 h w"],
    pixels: Int[Array, " p"],
    stiffness: float,
    steps: int,
) -> Float[Array, "2 2 g g"]:
    """Nodes with which the warped sources correlate best with what is wanted, over channels."""
    count, height, width = sources.shape
    cell = jnp.asarray(warping.spacing((height, width), nodes.shape[-1]))[:, None, None]
    # A pixel's channels lie together, as a pixel is what is fetched.
    source, want = (x.reshape(count, -1).T for x in (sources, wanted))
    want = want[pixels]
    want = want / (jnp.linalg.norm(want, axis=1, keepdims=True) + 1e-9)

    def loss(cells: Float[Array, "2 2 g g"]) -> Float[Array, ""]:
        shift = warping.displacement(cells * cell, cortex)
        found = warping.taps(shift, cortex, pixels)
        places = zip(found.pixels, found.weights, strict=True)
        fetched = jnp.asarray(sum(source[place] * weight[:, None] for place, weight in places))
        norm = jnp.sqrt(jnp.square(fetched).sum(1) + 1e-9)
        rough = [jnp.square(jnp.diff(cells, axis=axis)).sum() for axis in (-2, -1)]
        return stiffness * sum(rough) / cells.size - ((fetched * want).sum(1) / norm).mean()

    optim = optax.adam(LEARNING_RATE)

    def step(_: Array, state: tuple) -> tuple:
        cells, moments = state
        updates, moments = optim.update(jax.grad(loss)(cells), moments)
        return optax.apply_updates(cells, updates), moments

    start = nodes / cell
    return jax.lax.fori_loop(0, steps, step, (start, optim.init(start)))[0] * cell
