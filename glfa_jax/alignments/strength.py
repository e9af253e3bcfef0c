"""How strongly a fit is held to its prior, found on the maps at hand alone.

One half of the clips is fitted and the other predicted, then the other way round; the strength of
the best predictions is taken. The halves are the first and the last clips, as neighbouring windows
share volumes and noise.
"""

from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from glfa_jax.alignments.volumes import standardised
from glfa_jax.errors import InputError

# Predicts from volumes (t h w), their targets and new volumes (t2 h w) those of the new, at the
# pixels that are looked at, (t2 p): once for each strength.
Predict = Callable[[ndarray, ndarray, ndarray], Iterable[ndarray]]


def best_strength(
    strengths: tuple[float, ...],
    *,
    maps: Float[ndarray, "n w height width"],
    targets: Float[ndarray, "n w height width"],
    pixels: Int[ndarray, " p"],
    predict: Predict,
) -> float:
    """The strength whose predictions of one half by the other correlate best with the targets.

    Over time, mean over pixels and both ways; amplitude does not count, as it is restored. pixels:
    those that are looked at, row by row. Raises InputError for less than two volumes in a half.
    """
    clips, window, height, width = maps.shape
    half = clips // 2
    if half * window < 2:
        raise InputError(
            f"maps: hold {clips} clips of {window} volumes, must hold at least two clips and two "
            "volumes in each half of them, by which the fit's strength is chosen"
        )
    scores = np.zeros(len(strengths))
    first, last = slice(half), slice(half, None)
    for fitted, held in ((first, last), (last, first)):
        own, wanted, new, truth = (
            x[part].reshape(-1, height, width) for part in (fitted, held) for x in (maps, targets)
        )
        expected = standardised(truth.reshape(len(truth), -1)[:, pixels])
        for i, predicted in enumerate(predict(own, wanted, new)):
            scores[i] += (standardised(predicted) * expected).mean()
    return strengths[int(scores.argmax())]
