"""Which hemisphere the halves of a series are, as far as their values tell.

Files without a structure in their metadata are taken for what they are called. Vertices without a
signal are, in most of them, the medial wall, and that of the other hemisphere has other numbers.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from glfa_jax.data.gifti import SIDES, Side

Halves = Sequence[Bool[ndarray, " v"]]  # left, right
# Share of two sets of vertices that both have, from which on they are the same place. The walls of
# the two hemispheres share no vertex on fsaverage5, nor, nearly, on fsLR.
ALIKE = 0.25


def exchanged(silent: Halves, walls: Halves) -> list[Side]:
    """Sides whose silent vertices lie in the other hemisphere's medial wall, not in their own."""
    return [
        side
        for side, found, own, other in zip(SIDES, silent, walls, walls[::-1], strict=True)
        if len(own) == len(other)
        and _overlap(found, other) > ALIKE
        and _overlap(found, own) < ALIKE / 2
    ]


def _overlap(one: Bool[ndarray, " v"], two: Bool[ndarray, " v"]) -> float:
    return (one & two).sum() / max((one | two).sum(), 1)


class Witness:
    """Sees the blocks of a series go by; walls: vertices that the flat surfaces left out."""

    def __init__(self, walls: Halves):
        self.walls = walls
        self.moving = np.zeros(sum(map(len, walls)), bool)
        self.equal = bool(walls) and len(walls[0]) == len(walls[-1])
        self.first: ndarray | None = None

    def see(self, block: Float[ndarray, "time v"]) -> None:
        if not self.walls:
            return
        bits = np.ascontiguousarray(block, np.float32).view(np.int32)  # so that NaN equals NaN
        self.first = bits[0] if self.first is None else self.first
        self.moving |= (bits != self.first).any(axis=0)
        if self.equal:
            left, right = np.split(bits, 2, axis=1)
            self.equal = np.array_equal(left, right)

    def notes(self, scans: Sequence[Path]) -> list[str]:
        """A sentence for whatever seems to be wrong."""
        if not self.moving.any():
            return []
        if self.equal:
            return [f"{scans[-1]}: both hemispheres have the same values; one may stand for both"]
        silent = np.split(~self.moving, [len(self.walls[0])])
        other = dict(zip(SIDES, SIDES[::-1], strict=True))
        return [
            f"{scans[SIDES.index(side) % len(scans)]}: seems to hold the {other[side]} hemisphere "
            f"instead of the {side}: the vertices without a signal are those of its medial wall"
            for side in exchanged(silent, self.walls)
        ]
