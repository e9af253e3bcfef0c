"""A made-up cortex of two hemispheres on which one subject's smooth patterns lie elsewhere."""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

SIDE = 32
PATTERNS, CLIPS, WINDOW = 40, 40, 5


def make_mask() -> np.ndarray:
    """Ellipses of different width, so that the gap between them is not in the middle."""
    row, column = np.indices((SIDE, SIDE))
    return np.logical_or(
        ((row - 15.5) / 13) ** 2 + ((column - 9.5) / 8) ** 2 < 1,
        ((row - 15.5) / 12) ** 2 + ((column - 24.5) / 6) ** 2 < 1,
    )


MASK = make_mask()
LEFT = np.arange(SIDE) < 18


class Moved(NamedTuple):
    """The subject's maps, the others' of the same clips, the others' of other clips; and how far
    from a pixel the others hold what the subject has there."""

    maps: np.ndarray
    same: np.ndarray
    other: np.ndarray
    displacement: np.ndarray


def make(*, noise: float = 0.3, pixels: float = 1.2) -> Moved:
    """pixels: root mean square of the displacement."""
    rng = np.random.default_rng(0)

    def smooth(count: int, scale: float) -> np.ndarray:
        drawn = rng.standard_normal((count, SIDE, SIDE))
        fields = gaussian_filter(drawn, (0, scale, scale), mode="wrap")
        return fields / fields.std()

    patterns, way = smooth(PATTERNS, 1.5), smooth(4, 6.0)
    displacement = np.where(LEFT, way[:2], way[2:])
    displacement *= pixels / np.sqrt(np.square(displacement)[:, MASK].sum(0).mean())
    places = np.indices((SIDE, SIDE)) + displacement
    moved = np.stack([map_coordinates(one, places, order=3, mode="wrap") for one in patterns])

    def maps(courses: np.ndarray, patterns: np.ndarray) -> np.ndarray:
        found = np.tensordot(courses, patterns, 1)
        found += noise * found.std() * rng.standard_normal(found.shape)
        found = (found - found.mean(0)) / found.std(0) * MASK
        return found.reshape(CLIPS, WINDOW, SIDE, SIDE).astype(np.float32)

    shown, others = rng.standard_normal((2, CLIPS * WINDOW, PATTERNS))
    return Moved(
        maps(shown, moved),
        np.stack([maps(shown, patterns) for _ in range(2)]),
        np.stack([maps(others, patterns) for _ in range(2)]),
        np.moveaxis(displacement * MASK, 0, -1),
    )
