"""Whether a map of contributions keeps its word: does the score fall as it says?

Areas are deleted from where the map is highest, from where it is lowest, and in random orders. A
map that says where the score comes from lets it fall faster in the first order than in any other:
the area under the score over the deleted share of the cortex is smaller.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from glfa_jax.explain.measure import counts_of


@dataclass(frozen=True)
class Verdict:
    """p_value: the share of orders, this one among them, in which the score falls as fast as from
    where the map is highest; it cannot be below 1 / (1 + random orders)."""

    highest: float
    lowest: float
    random: float
    p_value: float

    @property
    def kept(self) -> bool:
        """Faster than by chance, and than from where the map is lowest."""
        return self.p_value <= 0.05 and self.highest < self.lowest


def order_of(
    contributions: Float[np.ndarray, "*b areas"], *, pixels: Int[np.ndarray, " areas"]
) -> Int[np.ndarray, "*b areas"]:
    """Areas from the highest contribution of a pixel to the lowest."""
    return np.argsort(-contributions / pixels, axis=-1, kind="stable")


def random_orders(areas: int, *, count: int, seed: int) -> Int[np.ndarray, "orders areas"]:
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(areas) for _ in range(count)])


def shares_of(
    orders: Int[np.ndarray, "*b areas"], *, pixels: Int[np.ndarray, " areas"], steps: int
) -> Float[np.ndarray, "*b steps_and_one"]:
    """The share of the cortex that is gone before the first step and after each."""
    gone = np.cumsum(pixels[orders], axis=-1) / pixels.sum()
    gone = np.concatenate([np.zeros((*gone.shape[:-1], 1)), gone], axis=-1)
    return gone[..., list(counts_of(orders.shape[-1], steps))]


def area_under(
    scores: Float[np.ndarray, "*b n"], *, shares: Float[np.ndarray, "*b n"]
) -> Float[np.ndarray, " *b"]:
    """Mean score while the cortex is deleted, by trapezoids."""
    return np.trapezoid(scores, shares, axis=-1)


def verdict(
    highest: Float[np.ndarray, " clips"],
    *,
    lowest: Float[np.ndarray, " clips"],
    random: Float[np.ndarray, "clips orders"],
) -> Verdict:
    """From the areas under the curves of every clip."""
    own, orders = float(highest.mean()), random.mean(0)
    as_fast = int((orders <= own).sum())
    return Verdict(
        highest=own,
        lowest=float(lowest.mean()),
        random=float(orders.mean()),
        p_value=(1 + as_fast) / (1 + len(orders)),
    )
