"""How scores of maps depend on parts of them, for any score that JAX can differentiate.

A part counts by what is lost without it: its pixels are replaced by those of an average window.
`by_area` measures that, `slopes` is its linear estimate at every pixel, `deleted` replaces more and
more.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

# (given, maps) to k scores of every clip. `given` is a tree of arrays, such as parameters and
# targets; the function itself is static, so that one compiled program serves all values of them.
Score = Callable[[Any, Float[Array, "b w height width"]], Float[Array, "b k"]]


class Slopes(NamedTuple):
    """full: the scores of the whole maps. gradient: of every pixel, summed over the window."""

    full: Float[np.ndarray, "b k"]
    gradient: Float[np.ndarray, "b k height width"]


def slopes(
    score: Score,
    given: Any,
    maps: Float[np.ndarray, "b w height width"],
    *,
    average: Float[np.ndarray, "w height width"],
) -> Slopes:
    """Gradient × input: slope of the score times (map − average), summed over the window.

    To first order, by how much the score falls when the pixel is replaced by its average.
    """
    found = _slopes(score, given, jnp.asarray(maps, jnp.float32), jnp.asarray(average))
    return Slopes(*jax.device_get(found))


def by_area(
    score: Score,
    given: Any,
    maps: Float[np.ndarray, "b w height width"],
    *,
    average: Float[np.ndarray, "w height width"],
    areas: Int[np.ndarray, "height width"],
    progress: Callable[[], object] = lambda: None,
) -> Float[np.ndarray, "b k areas"]:
    """Occlusion: by how much the score falls when an area alone is replaced by its average.

    areas: the number of every pixel's area from 0, −1 off the cortex. progress: called after every
    pass.
    """
    full = replaced(score, given, maps, average=average, gone=np.zeros(areas.shape, bool))
    lost = []
    for area in range(int(areas.max()) + 1):
        lost.append(full - replaced(score, given, maps, average=average, gone=areas == area))
        progress()
    return np.stack(lost, axis=-1)


class Ends(NamedTuple):
    """The scores of the whole maps, and with none of the cortex: in whatever order it goes."""

    whole: Float[np.ndarray, "b k"]
    none: Float[np.ndarray, "b k"]


def ends(
    score: Score,
    given: Any,
    maps: Float[np.ndarray, "b w height width"],
    *,
    average: Float[np.ndarray, "w height width"],
    areas: Int[np.ndarray, "height width"],
) -> Ends:
    """Of the curves of `deleted`; arguments as of `by_area`."""
    return Ends(
        *(replaced(score, given, maps, average=average, gone=x) for x in (areas < -1, areas >= 0))
    )


def deleted(
    score: Score,
    given: Any,
    maps: Float[np.ndarray, "b w height width"],
    *,
    average: Float[np.ndarray, "w height width"],
    areas: Int[np.ndarray, "height width"],
    orders: Int[np.ndarray, "b areas"],
    steps: int,
    between: Ends,
    progress: Callable[[], object] = lambda: None,
) -> Float[np.ndarray, "b k steps_and_one"]:
    """The scores while areas are replaced one after another, from the whole maps to none of them.

    orders: for each clip, all areas, the first to go first. between: as `ends` gives them.
    Otherwise as `by_area`.
    """
    clips, count = orders.shape
    found = []
    for first in [*counts_of(count, steps)][1:-1]:
        named = np.zeros((clips, count + 1), bool)  # the last for −1, which never goes
        named[np.arange(clips)[:, None], orders[:, :first]] = True
        found.append(replaced(score, given, maps, average=average, gone=named[:, areas]))
        progress()
    return np.stack([between.whole, *found, between.none], axis=-1)


def counts_of(areas: int, steps: int) -> Iterator[int]:
    """How many areas are gone before the first step and after each, in `steps` equal parts."""
    yield from np.rint(np.linspace(0, areas, steps + 1)).astype(int).tolist()


def replaced(
    score: Score,
    given: Any,
    maps: Float[np.ndarray, "b w height width"],
    *,
    average: Float[np.ndarray, "w height width"],
    gone: Bool[np.ndarray, "*b height width"],
) -> Float[np.ndarray, "b k"]:
    """The scores with the pixels that are gone replaced by their average: of all clips, or of
    each other ones."""
    each = np.broadcast_to(gone, (len(maps), *gone.shape[-2:]))
    found = _replaced(
        score, given, jnp.asarray(maps, jnp.float32), jnp.asarray(average), jnp.asarray(each)
    )
    return np.asarray(found)


@partial(jax.jit, static_argnames="score")
def _replaced(score: Score, given: Any, maps: Array, average: Array, gone: Array) -> Array:
    return score(given, jnp.where(gone[:, None], average, maps))


@partial(jax.jit, static_argnames="score")
def _slopes(score: Score, given: Any, maps: Array, average: Array) -> tuple[Array, Array]:
    full, back = jax.vjp(partial(score, given), maps)

    def one(column: int) -> Array:
        # Clips do not see each other, so that the slopes of all are those of their sum.
        (slope,) = back(jnp.zeros_like(full).at[:, column].set(1))
        return (slope * (maps - average)).sum(1)

    return full, jnp.stack([one(column) for column in range(full.shape[1])], axis=1)
