"""What local layers do to maps, and whether it undoes the displacement of simulated subjects."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from glfa_jax import config
from glfa_jax.alignments.taps import weights_of
from glfa_jax.data import flatmap
from glfa_jax.files import read_arrays


def with_one_kernel(
    theta: Float[ndarray, "k h w"], mask: Bool[ndarray, "h w"]
) -> Float[ndarray, "k h w"]:
    """The layer that smooths as much on average, but alike everywhere: an ordinary convolution."""
    mean = weights_of(theta)[:, mask].mean(axis=1)
    mean[len(mean) // 2] -= 1  # the layer adds the identity
    return np.broadcast_to(mean[:, None, None].astype(np.float32), theta.shape)


def true_displacement(data: config.Data, *, subject: str) -> Float[ndarray, "h w 2"] | None:
    """Rows and columns from a pixel to where the canonical map holds its tuning, zero off cortex.

    None where the truth is not known, as of every real subject.
    """
    folder = data.root / "ground_truth"
    if not (folder / f"sub-{subject}.npz").exists():
        return None
    canonical = read_arrays(folder / "canonical.npz", "ground truth")
    vertices, side = canonical["vertices"], canonical["side"]
    forward, up = read_arrays(folder / f"sub-{subject}.npz", "ground truth")["displacement"].T
    flat = flatmap.of(data)
    assert flat.pixel_mm is not None  # simulated scans are of surfaces, not images
    values = np.zeros((2, sum(flat.sides)))
    values[:, vertices] = -up, side * forward  # rows go down; forward leads away from the middle
    return np.moveaxis(flat.to_map(values / flat.pixel_mm), 0, -1)


def undone(
    shifts: Float[ndarray, "s h w 2"],
    displacements: Float[ndarray, "s h w 2"],
    *,
    mask: Bool[ndarray, "h w"],
    pairs: Iterable[tuple[int, int]],
) -> float:
    """The share of the displacement between subjects that their layers take away.

    The slope of how layers differ over how they would have to differ, mean over pairs: 1 where they
    bring every place of the canonical map together, 0 where all subjects share a layer.
    """
    shares = []
    for i, j in pairs:
        wanted = (displacements[j] - displacements[i])[mask]
        found = (shifts[i] - shifts[j])[mask]
        shares.append(np.sum(found * wanted) / np.sum(wanted**2))
    return float(np.mean(shares))
