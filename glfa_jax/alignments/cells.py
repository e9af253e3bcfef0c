"""Alignments that mix the pixels of square cells, each cell by itself, and so need no V x V matrix.

Two grids of cells, the second half a cell below and right of the first, are averaged, so that what
lies near a border in one is inside in the other.
"""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from glfa_jax.alignments.amplitude import Gain, restoring
from glfa_jax.alignments.protocol import Alignment, aligned_in_parts
from glfa_jax.alignments.strength import best_strength
from glfa_jax.alignments.volumes import standardised, volumes_of
from glfa_jax.models.glfa import from_patches, to_patches

GRIDS = 2
# Cells that are fitted at once, which bounds memory.
_CELLS = 32
# Cells of the first grid by which a strength is judged.
_JUDGED = 64


class _Grid(NamedTuple):
    """How a map is filled up with zeros to whole cells, and where it then lies."""

    pad: tuple[tuple[int, int], tuple[int, int]]
    inside: tuple[slice, slice]


def _grids(maps_shape: tuple[int, int], side: int) -> tuple[tuple[int, int], list[_Grid]]:
    """The size of the filled map in pixels, and the grids on it."""
    height, width = ((-(-size // side) + 1) * side for size in maps_shape)
    grids = []
    for grid in range(GRIDS):
        first = grid * side // GRIDS
        down, right = first + maps_shape[0], first + maps_shape[1]
        pad = ((first, height - down), (first, width - right))
        grids.append(_Grid(pad, (slice(first, down), slice(first, right))))
    return (height, width), grids


class CellMixing(nn.Module):
    """y_p = g_p mean over grids of sum_q x_q M_qp, q in the cell of p; the identity at first."""

    height: int
    width: int
    side: int

    @nn.compact
    def __call__(self, x: Float[Array, "*b h w"]) -> Float[Array, "*b h w"]:
        (height, width), grids = _grids((self.height, self.width), self.side)
        pixels = self.side**2
        shape = (GRIDS, height * width // pixels, pixels, pixels)
        mixing = self.param("mixing", lambda _: jnp.broadcast_to(jnp.eye(pixels), shape))
        total = jnp.zeros_like(x)
        for weights, grid in zip(mixing, grids, strict=True):
            whole = jnp.pad(x, ((0, 0),) * (x.ndim - 2) + grid.pad)
            mixed = jnp.einsum("...nq,nqp->...np", to_patches(whole, self.side), weights)
            total += from_patches(mixed, height, width, self.side)[..., *grid.inside]
        return Gain(self.height, self.width, name="amplitude")(total / GRIDS)


def cells_of(
    mask: Bool[np.ndarray, "h w"], *, side: int
) -> tuple[Int[np.ndarray, "g n c"], Bool[np.ndarray, "g n c"]]:
    """The pixels of every cell of each grid, row by row, and which of them are cortex."""
    numbers = np.arange(mask.size).reshape(mask.shape)
    _, grids = _grids((mask.shape[0], mask.shape[1]), side)
    pixels, inside = (
        np.stack([to_patches(jnp.asarray(np.pad(image, grid.pad)), side) for grid in grids])
        for image in (numbers, mask)
    )
    return pixels, inside


@dataclass(frozen=True)
class CellAlignment(Alignment):
    """Pairs of maps aligned cell by cell; a method says how one cell is mixed.

    The strength with which a method holds a cell to its prior is that with which halves of the
    clips predict each other best (`best_strength`), the same for all cells. At the end every pixel
    gets back its amplitude.

    cell: pixels along a side. A cell in the middle of the map may hold pixels of both hemispheres.
    """

    cell: int = 8

    needs = "paired"
    strengths: ClassVar[tuple[float, ...]]

    @abstractmethod
    def mix(
        self,
        own: Float[Array, "n t c"],
        *,
        targets: Float[Array, "n t c"],
        inside: Bool[Array, "n c"],
        strength: Float[Array, ""],
    ) -> Float[Array, "n c c"]:
        """The mixing of some cells; own and targets are standardised and 0 off the cortex."""

    def layer(self, maps_shape, *, box=None):
        return CellMixing(*maps_shape, self.cell)

    def solve(self, maps, *, targets, group, settings, seed):
        assert targets is not None  # `fit` asked for them
        volumes, wanted = volumes_of(maps), volumes_of(targets, what="targets")
        places, inside = cells_of(group.mask, side=self.cell)
        strength = self._strength(maps, targets=targets, places=places[0], inside=inside[0])
        pixels = self.cell**2
        mixing = np.empty((*places.shape, pixels), np.float32)
        mixing[:] = np.eye(pixels)
        flat, flat_wanted = (x.reshape(len(x), -1) for x in (volumes, wanted))
        for grid in range(GRIDS):
            (some,) = np.nonzero(inside[grid].any(1))
            for start in range(0, len(some), _CELLS):
                chosen = some[start : start + _CELLS]
                mixing[grid, chosen] = self._mixed(
                    flat,
                    targets=flat_wanted,
                    places=places[grid, chosen],
                    inside=inside[grid, chosen],
                    strength=strength,
                )
        params = {"mixing": mixing, "amplitude": {"gain": np.ones(group.mask.shape, np.float32)}}
        fitted = aligned_in_parts(self.layer(group.mask.shape), params, volumes)
        params["amplitude"]["gain"] = restoring(volumes, fitted=fitted)
        return params

    def _strength(self, maps, *, targets, places, inside) -> float:
        (some,) = np.nonzero(inside.any(1))
        some = some[np.linspace(0, len(some) - 1, min(len(some), _JUDGED), dtype=int)]
        places, inside = places[some], inside[some]

        def predict(own, wanted, new) -> Iterator[np.ndarray]:
            own, wanted, new = (x.reshape(len(x), -1) for x in (own, wanted, new))
            cells = new[:, places] * inside
            mixed = partial(self._mixed, own, targets=wanted, places=places, inside=inside)
            for strength in self.strengths:
                yield np.einsum("tnq,nqp->tnp", cells, mixed(strength=strength))[:, inside]

        pixels = places[inside]
        return best_strength(
            self.strengths, maps=maps, targets=targets, pixels=pixels, predict=predict
        )

    def _mixed(self, flat, *, targets, places, inside, strength) -> np.ndarray:
        own, wanted = (
            np.moveaxis(standardised(x[:, places]) * inside, 0, 1) for x in (flat, targets)
        )
        pairs = inside[:, :, None] & inside[:, None]
        found = self.mix(own, targets=wanted, inside=inside, strength=strength)
        return np.where(pairs, found, np.eye(self.cell**2))
