"""How sure a layer is that was fitted to a new subject: what halves of his clips say of each other.

One layer is fitted to the first half of the clips and one to the last, as neighbouring windows
share volumes and noise. That takes about as long as the fit itself, and twice as long with methods
whose time does not depend on how many clips there are.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from glfa_jax.alignments import Alignment
from glfa_jax.alignments.composed import Composed
from glfa_jax.alignments.descent import DescentAlignment
from glfa_jax.alignments.protocol import apply_layer
from glfa_jax.config import Adapt
from glfa_jax.data.correlation import RunningCorrelation
from glfa_jax.errors import InputError
from glfa_jax.stages.fitting import Maps

TRAINED = "the layer is trained in steps; one for each half of the clips would take too long"
NOTHING = (
    "without clips that others saw there is nothing to compare with, and the layer has no "
    "displacement that halves of the clips could agree on"
)


class Certainty(NamedTuple):
    """What was found, or why nothing was.

    numbers: held_out_before and held_out_after, where there are targets: correlation over time with
        them in the half that a layer was not fitted to, mean over pixels and both halves.
        halves_correlation and halves_difference_pixels (root mean square), where layers have a
        displacement: of the two halves'. left_out, of a method that goes by anatomy: share of the
        variance of training subjects' displacement that is told of each by the others.
    maps: held_out_before and held_out_after at every pixel, not a number off the cortex.
    not_measured: why not, as a phrase; empty where it was.
    """

    numbers: dict[str, float]
    maps: dict[str, Float[ndarray, "h w"]]
    not_measured: str = ""


def is_quick(method: Alignment) -> bool:
    """Whether no part of the method is trained in steps."""
    parts = method.parts if isinstance(method, Composed) else (method,)
    return not any(isinstance(part, DescentAlignment) for part in parts)


def certainty(
    method: Alignment,
    maps: Maps,
    *,
    reference: Float[ndarray, "h w 2"] | None,
    settings: Adapt,
    seed: int,
) -> Certainty:
    """Fits a layer to each half.

    reference: the displacement that the subject's is told from, as `shift` gives it.
    """
    half = len(maps.own) // 2
    # Of one size, so that one compiled program serves both.
    first, last = maps.part(slice(half)), maps.part(slice(half, 2 * half))
    try:
        layers = [
            method.fit(x.own, targets=x.targets, group=x.group, settings=settings, seed=seed).params
            for x in (first, last)
        ]
    except InputError as error:
        return Certainty({}, {}, f"half of the clips is too little to fit a layer to ({error})")
    found = {} if maps.targets is None else _held_out(method, layers, judges=(last, first))
    numbers = {key: float(np.nanmean(one)) for key, one in found.items()}
    numbers |= _alike(method, layers, mask=maps.group.mask, reference=reference)
    return Certainty(numbers, found, "" if numbers else NOTHING)


def _held_out(
    method: Alignment, layers: list[dict], *, judges: tuple[Maps, Maps]
) -> dict[str, Float[ndarray, "h w"]]:
    """judges: of each layer the clips that it was not fitted to."""
    mask = judges[0].group.mask
    module = method.layer(mask.shape)
    before, after = [], []
    for params, judge in zip(layers, judges, strict=True):
        assert judge.targets is not None  # else there is nothing to correlate with
        correlations = [RunningCorrelation(int(mask.sum())) for _ in range(2)]
        for own, wanted in zip(judge.own, judge.targets, strict=True):  # all would fill the memory
            aligned = np.asarray(apply_layer(module, params, jnp.asarray(own)))
            for correlation, given in zip(correlations, (own, aligned), strict=True):
                correlation.add(given[:, mask], wanted[:, mask])
        before.append(correlations[0].result())
        after.append(correlations[1].result())
    return {
        "held_out_before": _on_map(np.mean(before, axis=0), mask),
        "held_out_after": _on_map(np.mean(after, axis=0), mask),
    }


def _on_map(values: Float[ndarray, " p"], mask: Bool[ndarray, "h w"]) -> Float[ndarray, "h w"]:
    found = np.full(mask.shape, np.nan, np.float32)
    found[mask] = values
    return found


def _alike(
    method: Alignment,
    layers: list[dict],
    *,
    mask: Bool[ndarray, "h w"],
    reference: Float[ndarray, "h w 2"] | None,
) -> dict[str, float]:
    """Of the two layers' displacements, rows and columns together."""
    shifts = [method.shift(params, maps_shape=mask.shape) for params in layers]
    if reference is None or any(one is None for one in shifts):
        return {}
    one, two = ((shift - reference)[mask] for shift in shifts if shift is not None)
    if not (one.std() and two.std()):  # one that displaces nothing correlates with nothing
        return {}
    return {
        "halves_correlation": float(np.corrcoef(one.ravel(), two.ravel())[0, 1]),
        "halves_difference_pixels": float(np.sqrt(np.square(one - two).sum(-1).mean())),
    }
