"""What local layers do to maps, and whether it undoes the displacement of simulated subjects."""

from collections.abc import Iterable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from glfa_jax import config
from glfa_jax.alignments import Layer
from glfa_jax.alignments.glfa import LOCAL, Glfa
from glfa_jax.data import flatmap
from glfa_jax.files import read_arrays
from glfa_jax.ops.local_conv_reference import kernels


def shift_of(layer: Layer, maps_shape: tuple[int, int]) -> Float[ndarray, "h w 2"] | None:
    """Rows and columns from a pixel to where a subject's layer fetches its signal, on average; None
    where it comes from no one place."""
    if isinstance(layer.method, Glfa) and LOCAL in layer.params:
        return shift(layer.params[LOCAL])
    return layer.method.shift(layer.params, maps_shape=maps_shape)


def shift(theta: Float[ndarray, "k h w"]) -> Float[ndarray, "h w 2"]:
    """From how far the layer fetches the signal of a pixel, on average: rows and columns."""
    taps = len(theta)
    reach = int(taps**0.5) // 2
    offsets = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, taps)
    return np.einsum("khw,ck->hwc", _weights(theta), offsets)


def with_one_kernel(
    theta: Float[ndarray, "k h w"], mask: Bool[ndarray, "h w"]
) -> Float[ndarray, "k h w"]:
    """The layer that smooths as much on average, but alike everywhere: an ordinary convolution."""
    mean = _weights(theta)[:, mask].mean(axis=1)
    mean[len(mean) // 2] -= 1  # the layer adds the identity
    return np.broadcast_to(mean[:, None, None].astype(np.float32), theta.shape)


def _weights(theta: Float[ndarray, "k h w"]) -> Float[ndarray, "k h w"]:
    return np.asarray(kernels(jnp.asarray(theta)), np.float64)


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
