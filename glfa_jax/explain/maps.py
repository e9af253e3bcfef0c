"""Contributions to what an encoder makes of given maps, in memory: needs no run and no store."""

from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from glfa_jax import config
from glfa_jax.convert.pretrained import Pretrained, in_memory
from glfa_jax.explain import measure
from glfa_jax.explain.areas import Areas
from glfa_jax.explain.scores import CONDITION, IMAGE, Scoring, beyond_mean, computing
from glfa_jax.training.step import matmul_precision


@dataclass(frozen=True, eq=False)
class Contributions:
    """What parts of the cortex contribute to a score of each clip (`explain.scores`).

    full: the score of the whole maps. gradient: gradient × input of every pixel, summed over the
    window. occlusion: by how much the score falls when an area is replaced by the average. areas:
    `names`, and the `number` of every pixel's area, −1 off the cortex.
    """

    full: Float[np.ndarray, " clips"]
    gradient: Float[np.ndarray, "clips height width"]
    occlusion: Float[np.ndarray, "clips areas"]
    areas: Areas


def contributions_of(
    encoder: Pretrained,
    maps: Float[np.ndarray, "clips w height width"],
    *,
    average: Float[np.ndarray, "w height width"],
    areas: Areas,
    towards: Float[np.ndarray, "clips e"] | None,
    hardware: config.Hardware,
    batch_size: int,
    progress: bool,
) -> Contributions:
    """Arguments as of `Decoder.contributions`; everything is of the right shape."""
    module = computing(encoder.module, hardware)
    names = (CONDITION,) if towards is None else (IMAGE,)
    scoring = Scoring(module, names, attention=hardware.attention)
    variables = jax.device_put(in_memory(encoder.variables))
    aims = None if towards is None else beyond_mean(towards)
    average = np.where(areas.number >= 0, average, 0).astype(np.float32)
    full, gradient, occlusion = [], [], []
    starts = range(0, len(maps), batch_size)
    for start in tqdm(starts, desc="contributions", unit="batch", disable=not progress):
        rows = slice(start, start + batch_size)
        given = scoring.given(
            variables,
            maps[rows],
            average=average,
            towards={} if aims is None else {IMAGE: aims[rows]},
        )
        ready = (scoring, given, maps[rows])
        with matmul_precision(hardware):
            slopes = measure.slopes(*ready, average=average)
            lost = measure.by_area(*ready, average=average, areas=areas.number)
        full.append(slopes.full[:, 0])
        gradient.append(slopes.gradient[:, 0])
        occlusion.append(lost[:, 0])
    whole, slope, lost = (np.concatenate(parts) for parts in (full, gradient, occlusion))
    return Contributions(whole, slope, lost, areas)
