"""Displacement between subjects: read from the layers, and from the truth of simulated brains."""

from itertools import combinations
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from glfa_jax import config
from glfa_jax.alignments.taps import mean_shift
from glfa_jax.data import flatmap
from glfa_jax.evaluation import displacement
from glfa_jax.ops.local_conv import local_conv
from glfa_jax.simulate.cortex import visual_cortex
from glfa_jax.simulate.ground_truth import write_canonical, write_truth
from glfa_jax.simulate.subjects import draw_subject
from glfa_jax.simulate.tuning import canonical_tuning

RASTER, KERNEL = 48, 5
SUBJECTS = ("01", "02")
SIMULATION = config.Simulation(subjects=2, noise=0, displacement=4, mixing=0, gain=0, seed=3)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> config.Data:
    """Where the truth of two subjects lies; nothing else of the study is needed."""
    root = tmp_path_factory.mktemp("displaced")
    cortex = visual_cortex()
    tuning = canonical_tuning(cortex, seed=SIMULATION.seed)
    write_canonical(root / "ground_truth" / "canonical.npz", cortex)
    for index, name in enumerate(SUBJECTS):
        subject = draw_subject(SIMULATION, tuning, index=index)
        power = np.ones(len(cortex.vertices))
        write_truth(root / "ground_truth" / f"sub-{name}.npz", subject, power=power)
    return config.Data(root=root, store=root / "unused.zarr", subjects=SUBJECTS, map_size=RASTER)


@pytest.fixture(scope="module")
def truth(data) -> np.ndarray:
    found = [displacement.true_displacement(data, subject=name) for name in SUBJECTS]
    return np.stack(found)  # type: ignore[arg-type]


def fetching(offsets: np.ndarray) -> Any:
    """The local layer's parameters that fetch every pixel from `offsets` (h, w, 2), bilinearly."""
    reach = KERNEL // 2
    places = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1).T
    near = 1 - np.abs(np.clip(offsets, -reach, reach) - places[:, None, None])
    weights = np.maximum(near, 0).prod(-1)
    weights[len(weights) // 2] -= 1
    return weights.astype(np.float32)


def test_the_truth_points_to_where_the_canonical_map_has_the_tuning(data, truth):
    """Tuning fetched by it looks like the canonical one; fetched the other way, less than raw."""
    cortex, flat = visual_cortex(), flatmap.of(data)
    tuning = canonical_tuning(cortex, seed=SIMULATION.seed)

    def drawn(weights: np.ndarray) -> np.ndarray:
        values = np.zeros((len(weights), sum(flat.sides)), np.float32)
        values[:, cortex.vertices] = weights
        return flat.to_map(values)

    inner: np.ndarray = binary_erosion(flat.mask, iterations=KERNEL // 2)
    canonical = drawn(tuning.weights(cortex.canonical, cortex.side))
    for index, toward in enumerate(truth):
        own = drawn(draw_subject(SIMULATION, tuning, index=index).weights)

        def alike(offsets: np.ndarray, own: np.ndarray = own) -> float:
            moved = np.asarray(local_conv(jnp.asarray(own), fetching(offsets), kernel_size=KERNEL))
            a, b = (x[:, inner] - x[:, inner].mean(0) for x in (moved, canonical))
            norms = np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0)
            return float(np.median((a * b).sum(0) / norms))

        right, raw, wrong = (alike(sign * toward) for sign in (-1, 0, 1))
        assert right > raw + 0.1
        assert raw > wrong + 0.05


def test_layers_that_fetch_by_the_truth_undo_all_of_it(data, truth):
    mask = flatmap.of(data).mask & (np.abs(truth).max((0, -1)) <= KERNEL // 2)
    assert mask.sum() > 300
    pairs = list(combinations(range(len(SUBJECTS)), 2))
    for share in (1.0, 0.4, 0.0, -1.0):
        shifts = np.stack([mean_shift(fetching(-share * own)) for own in truth])
        np.testing.assert_allclose(shifts[:, mask], -share * truth[:, mask], atol=1e-5)
        found = displacement.undone(shifts, truth, mask=mask, pairs=pairs)
        assert found == pytest.approx(share, abs=1e-5)
    shared = mean_shift(fetching(-truth[0]))
    found = displacement.undone(np.stack([shared, shared]), truth, mask=mask, pairs=pairs)
    assert found == 0


def test_one_kernel_is_the_mean_of_all(truth):
    theta = fetching(truth[0])
    mask = np.zeros(theta.shape[1:], bool)
    mask[10:30, 5:25] = True
    uniform = displacement.with_one_kernel(theta, mask)
    assert np.ptp(uniform, axis=(1, 2)).max() == 0
    np.testing.assert_allclose(
        mean_shift(uniform)[0, 0], mean_shift(theta)[mask].mean(0), atol=1e-5
    )


def test_no_truth_is_known_of_real_subjects(data):
    assert displacement.true_displacement(data, subject="07") is None
