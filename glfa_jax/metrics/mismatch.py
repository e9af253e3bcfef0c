"""What a metric gives against the truth of other clips, which stands for chance."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

OTHERS = 5  # clips that each is compared with


def with_some(
    measure: Callable[..., np.ndarray], own: np.ndarray, truth: np.ndarray, seed: int
) -> Float[np.ndarray, " b"]:
    """Mean over some other clips, as far away in the list as is drawn by `seed`."""
    shifts = np.random.default_rng(seed).permutation(np.arange(1, len(truth)))[:OTHERS]
    # In two parts, as a copy of all videos would be large.
    values = [
        [*measure(own[:shift], truth=truth[-shift:]), *measure(own[shift:], truth=truth[:-shift])]
        for shift in shifts
    ]
    return np.mean(values, axis=0)


def with_all(
    measure: Callable[..., np.ndarray], own: np.ndarray, truth: np.ndarray, seed: int
) -> Float[np.ndarray, " b"]:
    """Mean over every other clip; nothing is drawn. The time grows with the square of the clips."""
    clips = len(truth)
    total = np.zeros(clips)
    for shift in range(1, clips):
        total += measure(own, truth=np.roll(truth, shift, axis=0))
    return total / (clips - 1)
