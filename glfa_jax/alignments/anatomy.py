"""Maps warped as the subject's anatomy says, so that no fMRI of his is needed."""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from glfa_jax.alignments import warping
from glfa_jax.alignments.amplitude import restoring
from glfa_jax.alignments.anatomical_features import features, outwards
from glfa_jax.alignments.protocol import Alignment, Brains, aligned_in_parts
from glfa_jax.alignments.registry import register
from glfa_jax.alignments.volumes import volumes_of
from glfa_jax.alignments.warp import Warp
from glfa_jax.errors import InputError

FEWEST = 3  # training subjects: with one left out, the others must still differ
ENOUGH = 10  # with fewer, what is found may be chance
PENALTIES = 10.0 ** np.arange(-4, 3)


class Regression(NamedTuple):
    """weights: from features, as differences from the training subjects' mean, to displacement
    downwards and outwards. left_out: share of the displacement's variance between training subjects
    that is told of each by the others; below 0 where guessing the mean is better.
    """

    weights: Float[ndarray, "f 2"]
    penalty: float
    left_out: float


@register("anatomy")
@dataclass(frozen=True)
class Anatomy(Alignment):
    """The layer of `warp`, its displacement told by maps of curvature, myelin and the like.

    u(p) = mean_s u_s(p) + W (f(p) - mean_s f_s(p)) for training subjects s, whose own displacement
    u_s is known from fMRI. f are `anatomical_features`; one W serves all pixels of both
    hemispheres, as directions are those of the cortex. W is a ridge regression; its penalty is the
    one with which training subjects who are left out are told best. The gain gives training
    subjects' maps, moved in the same way, their amplitude back.

    grid: nodes of u along each side of a hemisphere's half of the map.
    """

    grid: int = 10

    needs = "anatomy"

    def layer(self, maps_shape, *, box=None):
        return Warp(self.grid).layer(maps_shape, box=box)

    def solve(self, maps, *, targets, group, settings, seed):
        brains, shape = _known(group.brains), group.mask.shape
        cortex = warping.hemispheres(group.mask)
        shift = predicted(brains, group.mask, weights=regression(brains, group.mask).weights)
        nodes = jnp.asarray(warping.nodes_of(shift, cortex, grid=self.grid))
        params = {"displacement": nodes, "cortex": cortex}
        gain = self._gain(params, group.maps) if group.maps.size else np.ones(shape, np.float32)
        return params | {"amplitude": {"gain": gain}}

    def _gain(self, params: dict, maps: Float[ndarray, "s n w h w2"]) -> Float[ndarray, "h w2"]:
        """What gives maps of training subjects, displaced like this, their amplitude back."""
        shape = maps.shape[-2:]
        layer, plain = self.layer(shape), {"gain": np.ones(shape, np.float32)}
        gains = []
        for theirs in maps:
            moved = aligned_in_parts(layer, params | {"amplitude": plain}, theirs)
            gains.append(restoring(volumes_of(theirs), fitted=volumes_of(moved)))
        return np.mean(gains, axis=0)

    def shift(self, params, *, maps_shape):
        return Warp(self.grid).shift(params, maps_shape=maps_shape)


def _known(brains: Brains | None) -> Brains:
    if brains is None:
        raise InputError(
            "anatomy: learns from the anatomy and the displacement of training subjects "
            "(group.brains), which the command train.adapt --method anatomy takes from a run"
        )
    validate_enough(len(brains.theirs))
    return brains


def validate_enough(training_subjects: int) -> None:
    """Raises InputError for too few to learn from."""
    if training_subjects < FEWEST:
        raise InputError(
            f"protocol.train_subjects: are {training_subjects}, but anatomy learns from at least "
            f"{FEWEST}, better from {ENOUGH} or more"
        )


def regression(brains: Brains, mask: Bool[ndarray, "h w"]) -> Regression:
    """Learned from the training subjects, whatever the new one's anatomy is."""
    cortex = warping.hemispheres(mask)
    told = np.stack([features(maps, cortex) for maps in brains.theirs])
    shifts = brains.shifts[:, mask].astype(np.float64)
    shifts[..., 1] *= outwards(cortex)[mask]
    # Features of one size, so that the penalty treats them alike.
    size = np.sqrt(np.square(told - told.mean(0)).mean((0, 1)))
    size = np.where(size > 0, size, 1)
    told /= size
    left, whole = np.zeros(len(PENALTIES)), 0.0
    for i in range(len(told)):
        others = np.arange(len(told)) != i
        own, known = told[i] - told[others].mean(0), shifts[i] - shifts[others].mean(0)
        guessed = own @ _ridge(told[others], shifts[others])
        left += np.square(known - guessed).sum((1, 2))
        whole += np.square(known).sum()
    best = left.argmin()
    weights = _ridge(told, shifts)[best] / size[:, None]
    return Regression(weights, float(PENALTIES[best]), float(1 - left[best] / whole))


def _ridge(
    told: Float[ndarray, "s p f"], shifts: Float[ndarray, "s p 2"]
) -> Float[ndarray, "penalties f 2"]:
    """Weights with every one of the penalties, on differences from the subjects' mean."""
    x = (told - told.mean(0)).reshape(-1, told.shape[-1])
    y = (shifts - shifts.mean(0)).reshape(-1, 2)
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    along = vectors.T @ (x.T @ y / len(x))
    return vectors @ (along / (np.clip(values, 0, None) + PENALTIES[:, None])[..., None])


def predicted(
    brains: Brains, mask: Bool[ndarray, "h w"], *, weights: Float[ndarray, "f 2"]
) -> Float[ndarray, "2 h w"]:
    """Rows and columns from a pixel to where the new subject's signal is to be fetched."""
    cortex = warping.hemispheres(mask)
    theirs = np.mean([features(maps, cortex) for maps in brains.theirs], axis=0)
    told = (features(brains.own, cortex) - theirs) @ weights
    told[:, 1] *= outwards(cortex)[mask]
    found = np.moveaxis(brains.shifts.mean(0), -1, 0) * mask
    found[:, mask] += told.T
    return found
