"""Simulated brains: how subjects depart from the canonical functional map.

A subject has that map displaced (local), with signals of distant patches mixed in (global), with
preferences of its own, and with an own gain and noise.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from glfa_jax import config
from glfa_jax.simulate.anatomy import Anatomy, draw_anatomy
from glfa_jax.simulate.cortex import Cortex, smooth_field
from glfa_jax.simulate.displacement import Patchwork, draw_patchwork, smooth_displacement
from glfa_jax.simulate.streams import Stream, generator
from glfa_jax.simulate.tuning import Tuning, own_weights

GAIN_SCALE = 30.0  # mm, correlation length of the gain
MIXED_PATCHES = 24  # per subject, over both hemispheres
PATCH_RADIUS = 12.0  # mm, Gaussian standard deviation of a mixed patch
LEAST_DISTANCE = 40.0  # mm between a patch and where its foreign signal comes from


@dataclass(frozen=True, eq=False)
class Subject:
    """One brain and how it departs from the canonical one; r vertices of the visual region.

    displacement: mm (forward, up), smooth and patchwise together; a vertex has the tuning of
        canonical place + displacement.
    patchwork: the patchwise part. anatomy: maps that may tell the smooth part. None where the world
        has none.
    patch_target, patch_source: canonical centres (mm) of p patches, applied in order; around the
        target, a fraction of the signal, `patch_weight` times a Gaussian of the offset from the
        centre, comes from the same offset around the source.
    gain: factor on the signal. noise: standard deviation of noise over that of the signal (root
        mean square over the canonical cortex).
    weights: resulting answer to each feature. own: the part of it that no other subject has.
    """

    displacement: Float[ndarray, "r 2"]
    patchwork: Patchwork | None
    anatomy: Anatomy | None
    patch_target: Float[ndarray, "p 2"]
    patch_target_side: Int[ndarray, " p"]
    patch_source: Float[ndarray, "p 2"]
    patch_source_side: Int[ndarray, " p"]
    patch_weight: float
    gain: Float[ndarray, " r"]
    noise: float
    weights: Float[ndarray, "features r"]
    own: Float[ndarray, "features r"] | None


def draw_subject(simulation: config.Simulation, tuning: Tuning, *, index: int) -> Subject:
    """Subject `index`, the same whatever other subjects there are."""
    cortex, seed = tuning.cortex, simulation.seed
    rng = generator(seed, Stream.SUBJECT, index=index)
    anatomy = patchwork = own = None
    if simulation.anatomy is not None:
        anatomy = draw_anatomy(generator(seed, Stream.ANATOMY, index=index), cortex)
    displacement = smooth_displacement(
        rng,
        cortex,
        size=simulation.displacement,
        anatomy=anatomy,
        correlation=simulation.anatomy or 0.0,
    )
    if simulation.patchwise:
        patchwork = draw_patchwork(simulation, cortex, index=index)
        displacement = displacement + patchwork.displacement
    target, source = _draw_patches(rng, cortex)
    log_gain = rng.standard_normal() + smooth_field(rng, count=1, scale=GAIN_SCALE)(
        cortex.canonical
    )
    gain = np.exp(simulation.gain * np.sqrt(0.5) * log_gain[:, 0])
    noise = float(simulation.noise * np.exp(simulation.gain * rng.standard_normal()))

    places = cortex.canonical + displacement
    weights = tuning.weights(places, cortex.side)
    for to, from_ in zip(target, source, strict=True):
        offset = cortex.canonical - cortex.canonical[to]
        amount = simulation.mixing * np.exp(-0.5 * (offset**2).sum(axis=1) / PATCH_RADIUS**2)
        touched = (cortex.side == cortex.side[to]) & (amount > 0.01 * simulation.mixing)
        foreign = places[touched] - cortex.canonical[to] + cortex.canonical[from_]
        sides = np.full(touched.sum(), cortex.side[from_])
        foreign_weights = tuning.weights(foreign, sides)
        weights[:, touched] += amount[touched] * (foreign_weights - weights[:, touched])
    if simulation.tuning_noise:
        own = np.sqrt(simulation.tuning_noise) * own_weights(cortex, seed=seed, index=index)
        weights[1:] *= np.sqrt(1 - simulation.tuning_noise)  # all but the answer to any clip
        weights += own
    return Subject(
        displacement=displacement,
        patchwork=patchwork,
        anatomy=anatomy,
        patch_target=cortex.canonical[target],
        patch_target_side=cortex.side[target],
        patch_source=cortex.canonical[source],
        patch_source_side=cortex.side[source],
        patch_weight=simulation.mixing,
        gain=gain,
        noise=noise,
        weights=weights * gain,
        own=None if own is None else own * gain,
    )


def _draw_patches(rng: np.random.Generator, cortex: Cortex) -> tuple[ndarray, ndarray]:
    """Vertices at the centres of the patches and of the distant places they hear."""
    targets = rng.choice(len(cortex.vertices), MIXED_PATCHES, replace=False)
    sources = []
    for target in targets:
        way = np.linalg.norm(cortex.canonical - cortex.canonical[target], axis=1)
        sources.append(rng.choice(np.flatnonzero(way > LEAST_DISTANCE)))
    return targets, np.array(sources)
