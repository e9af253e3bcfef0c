"""How alike subjects are."""

import numpy as np
import pytest

from glfa_jax import config
from glfa_jax.data import flatmap
from glfa_jax.data.relief import relief_of
from glfa_jax.evaluation.alignment import Correlation, align_maps
from glfa_jax.evaluation.decoding import HeldOut
from tests.stages import displaced
from tests.stages.variants import settings_of, store_trained

SIDE, VOLUMES = 24, 400


def test_equal_signals_correlate_as_noise_lets_them_over_time_and_by_pixel():
    rng = np.random.default_rng(0)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[2:] = True
    signal = rng.standard_normal((VOLUMES, SIDE, SIDE))
    pattern = 3 * rng.standard_normal((SIDE, SIDE))  # the same at all times: correlates nothing
    noises = (0.5, 1.5)
    maps = np.stack([signal + noise * rng.standard_normal(signal.shape) for noise in noises])
    found = Correlation(2, mask)
    for part in np.split(maps + pattern, 4, axis=1):
        found.add(part)
    assert found.mean() == pytest.approx((1.25 * 3.25) ** -0.5, abs=0.01)


def test_one_subject_is_alike_nobody():
    assert np.isnan(Correlation(1, np.ones((SIDE, SIDE), bool)).mean())


def test_what_is_drawn_of_an_alignment_is_written_as_far_as_it_is_known(tmp_path):
    store = displaced.write_store(tmp_path / "store.zarr")
    settings = settings_of(tmp_path, store)
    store_trained(settings)
    align_maps(HeldOut(settings, store, store))
    with np.load(tmp_path / "alignment.npz") as archive:
        found = dict(archive)
    assert found["shifts"].shape == (3, *displaced.MASK.shape, 2)
    assert not {"displacements", "pixel_mm", "curvature"} & set(found)  # no simulation, no mesh
    before = found["correlation_before"]
    np.testing.assert_array_equal(np.isfinite(before), displaced.MASK)
    maps = store.fmri("test", range(12), subjects=displaced.SUBJECTS).swapaxes(0, 1)
    series = maps[..., 5, 7].reshape(3, -1).astype(float)
    expected = np.mean([np.corrcoef(series[i], series[2])[0, 1] for i in (0, 1)])
    assert before[5, 7] == pytest.approx(expected, abs=1e-4)
    assert np.nanmean(before) < found["isc_before"]  # of which one pair is not displaced


def test_the_relief_is_that_of_the_stores_map_or_none(tmp_path):
    data = config.Data(root=tmp_path, store=tmp_path / "x", subjects=("01",), map_size=48)
    flat = flatmap.of(data)
    found = relief_of(data, mask=flat.mask)
    assert found["pixel_mm"] == flat.pixel_mm
    curvature = found["curvature"]
    assert not curvature[~flat.mask].any()
    assert 0.3 < (curvature[flat.mask] > 0).mean() < 0.7  # sulci
    assert relief_of(data, mask=~flat.mask) == {}
    gone = data.model_copy(update={"layout": "fudan"})  # whose mask lies in a root that is empty
    assert relief_of(gone, mask=flat.mask) == {}
