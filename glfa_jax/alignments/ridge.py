"""Ridge regression of the group's maps on a subject's, held to the identity."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float, Int

from glfa_jax.alignments import ridge_global, ridge_local
from glfa_jax.alignments.amplitude import Gain, restoring
from glfa_jax.alignments.protocol import Alignment, aligned_in_parts
from glfa_jax.alignments.registry import register
from glfa_jax.alignments.strength import best_strength
from glfa_jax.alignments.volumes import volumes_of
from glfa_jax.errors import InputError

# Largest first: of equally good ones the largest is taken.
STRENGTHS = tuple(float(x) for x in np.logspace(1, -4, 11))


class _Ridge(nn.Module):
    """The parts that there are, one after the other, then the gain."""

    local: ridge_local.LocalRidge | None
    whole: ridge_global.GlobalRidge | None
    amplitude: Gain

    def __call__(self, x: Float[Array, "*b h w"]) -> Float[Array, "*b h w"]:
        for part in (self.local, self.whole, self.amplitude):
            x = x if part is None else part(x)
        return x


@register("ridge")
@dataclass(frozen=True)
class Ridge(Alignment):
    """y = g (x W), |Y - X W|^2 + lambda |W - I|^2 least, with the maps of all volumes as rows.

    lambda is that with which halves of the clips predict each other best (`best_strength`); the
    gain g of every pixel gives it back its amplitude (`restoring`).

    part: `local`, W from a pixel's neighbourhood of kernel_size x kernel_size alone, whichever
    hemisphere its pixels are of, taps in the order of GLFA's; `global`, from all pixels, through
    the `rank` largest principal components of the maps; `both`, the local part, then the global
    one on what it gives.
    """

    part: Literal["local", "global", "both"] = "local"
    kernel_size: int = 5
    rank: int = 256

    needs = "paired"

    def __post_init__(self):
        if self.kernel_size % 2 == 0:
            raise InputError(f"alignment.options: kernel_size is {self.kernel_size}, must be odd")

    def layer(self, maps_shape, *, box=None):
        return _Ridge(
            None if self.part == "global" else self._local_layer(maps_shape),
            None if self.part == "local" else self._whole_layer(maps_shape),
            Gain(*maps_shape),
        )

    def solve(self, maps, *, targets, group, settings, seed):
        assert targets is not None  # `fit` asked for them
        volumes, wanted = volumes_of(maps), volumes_of(targets, what="targets")
        pixels, shape = np.flatnonzero(group.mask), group.mask.shape
        params, fitted, local = {}, volumes, None
        if self.part != "global":
            strength = self._local_strength(maps, targets, pixels)
            local = partial(self._solve_local, pixels=pixels, strength=strength)
        if self.part != "local":
            whole_strength = self._whole_strength(maps, targets, pixels, local)
        if local is not None:
            params["local"] = local(volumes, wanted)
            fitted = aligned_in_parts(self._local_layer(shape), params["local"], fitted)
        if self.part != "local":
            params["whole"] = ridge_global.solve_global(
                fitted, targets=wanted, rank=self.rank, strength=whole_strength
            )
            fitted = aligned_in_parts(self._whole_layer(shape), params["whole"], fitted)
        params["amplitude"] = {"gain": restoring(volumes, fitted=fitted)}
        return params

    def _local_layer(self, maps_shape: tuple[int, ...]) -> ridge_local.LocalRidge:
        height, width = maps_shape
        return ridge_local.LocalRidge(height, width, self.kernel_size)

    def _whole_layer(self, maps_shape: tuple[int, ...]) -> ridge_global.GlobalRidge:
        height, width = maps_shape
        return ridge_global.GlobalRidge(height, width, self.rank)

    def _solve_local(
        self, volumes: np.ndarray, targets: np.ndarray, *, pixels: np.ndarray, strength: float
    ) -> dict[str, Float[np.ndarray, "k h w"]]:
        weight = np.zeros((self.kernel_size**2, volumes[0].size), np.float32)
        weight[:, pixels] = ridge_local.solve_local(
            volumes,
            targets=targets,
            pixels=pixels,
            kernel_size=self.kernel_size,
            strength=strength,
        ).T
        return {"weight": weight.reshape(-1, *volumes.shape[1:])}

    def _local_strength(
        self, maps: np.ndarray, targets: np.ndarray, pixels: Int[np.ndarray, " p"]
    ) -> float:
        few = min(len(pixels), ridge_local.MOST_PIXELS)
        some = pixels[np.linspace(0, len(pixels) - 1, few, dtype=int)]
        predict = partial(
            ridge_local.predictions,
            pixels=some,
            kernel_size=self.kernel_size,
            strengths=STRENGTHS,
        )
        return best_strength(STRENGTHS, maps=maps, targets=targets, pixels=some, predict=predict)

    def _whole_strength(
        self,
        maps: np.ndarray,
        targets: np.ndarray,
        pixels: Int[np.ndarray, " p"],
        local: Any,
    ) -> float:
        """local: solves the local part, None where there is none.

        It is solved for each half anew: in maps that it was fitted to it leaves less to be done
        than in others.
        """

        def predict(own: np.ndarray, wanted: np.ndarray, new: np.ndarray) -> Iterable[np.ndarray]:
            if local is not None:
                layer, first = self._local_layer(own.shape[1:]), local(own, wanted)
                own, new = (aligned_in_parts(layer, first, volumes) for volumes in (own, new))
            return ridge_global.predictions(
                own, wanted, new, pixels=pixels, rank=self.rank, strengths=STRENGTHS
            )

        return best_strength(STRENGTHS, maps=maps, targets=targets, pixels=pixels, predict=predict)
