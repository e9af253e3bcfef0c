"""Numbers of a whole store, compared with numpy on all of it at once."""

import numpy as np
import pytest

from glfa_jax.data import DataError
from glfa_jax.report.inspection.inspection import inspect, spread_evenly
from tests.report.inspection.conftest import CLIPS, MASK, SUBJECTS, contents


def correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson of every pixel over samples and volumes, one pixel after another."""
    flat = [values.astype(np.float64).reshape(-1, *values.shape[2:]) for values in (first, second)]
    image = np.full(MASK.shape, np.nan)
    for row, column in np.argwhere(MASK):
        a, b = (values[:, row, column] for values in flat)
        if a.std() and b.std():
            image[row, column] = np.corrcoef(a, b)[0, 1]
    return image


def test_pairs_correlate_as_numpy_says(healthy):
    arrays = contents().arrays
    pairs = inspect(healthy, progress=False).pairs
    assert [pair.subjects for pair in pairs] == [("01", "02"), ("01", "03"), ("02", "03")]
    for pair in pairs:
        expected = correlation(*(arrays[f"test/fmri/sub-{s}"] for s in pair.subjects))
        np.testing.assert_allclose(pair.correlation, expected, atol=1e-5)
        assert pair.samples == CLIPS["test"]
        assert pair.mean == pytest.approx(np.nanmean(expected), abs=1e-6)
        assert pair.mean > 0.4


def test_only_samples_that_both_have_are_compared(make):
    arrays = contents().arrays
    rng = np.random.default_rng(1)
    there = {subject: rng.random(CLIPS["test"]) < 0.6 for subject in ("01", "02")}

    def change(made):
        for subject, present in there.items():
            made.arrays[f"test/present/sub-{subject}"] = present
            made.arrays[f"test/fmri/sub-{subject}"][~present] = 0

    inspection = inspect(make(change), progress=False)
    both = there["01"] & there["02"]
    expected = correlation(*(arrays[f"test/fmri/sub-{s}"][both] for s in ("01", "02")))
    assert inspection.pairs[0].samples == both.sum()
    np.testing.assert_allclose(inspection.pairs[0].correlation, expected, atol=1e-5)
    assert inspection.signals["01"].present == {"train": CLIPS["train"], "test": there["01"].sum()}
    assert inspection.signals["01"].total == CLIPS


def test_a_pixel_that_never_varies_has_no_correlation_and_no_coverage(make):
    def change(made):
        for split in CLIPS:
            made.arrays[f"{split}/fmri/sub-02"][..., 5, 5] = 0

    inspection = inspect(make(change), progress=False)
    assert not inspection.signals["02"].moving[5, 5]
    assert inspection.signals["02"].moving.sum() == MASK.sum() - 1
    np.testing.assert_array_equal(inspection.signals["01"].moving, MASK)
    first, other, second = inspection.pairs
    assert np.isnan(first.correlation[5, 5])
    assert np.isnan(second.correlation[5, 5])
    assert np.isfinite(other.correlation[5, 5])
    assert np.isfinite(first.mean)


def test_subjects_with_no_sample_in_common_are_said_to_have_none(make):
    def change(made):
        made.arrays["test/present/sub-03"][:] = False
        made.arrays["test/fmri/sub-03"][:] = 0

    pairs = inspect(make(change), progress=False).pairs
    assert [pair.samples for pair in pairs] == [CLIPS["test"], 0, 0]
    assert np.isnan(pairs[1].mean)
    assert np.isnan(pairs[1].correlation).all()


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_largest_z_of_either_split_is_found(make, split):
    def change(made):
        made.arrays[f"{split}/fmri/sub-03"][CLIPS[split] - 1, 0, 7, 7] = -12.5

    signals = inspect(make(change), progress=False).signals
    assert signals["03"].peak == 12.5
    expected = contents().arrays
    expected = max(np.abs(expected[f"{s}/fmri/sub-01"].astype(float)).max() for s in CLIPS)
    assert signals["01"].peak == pytest.approx(expected)


def test_clips_are_spread_and_of_those_that_all_have(make):
    def change(made):
        made.arrays["test/present/sub-01"][[0, 1, 36, 72]] = False

    store = make(change)
    assert spread_evenly(store, clips=3) == [2, 37, 71]
    assert spread_evenly(store, clips=0) == []
    assert len(set(spread_evenly(store, clips=1000))) == CLIPS["test"] - 4


def test_a_damaged_shard_is_one_sentence(make):
    store = make(lambda made: None)
    shard = store.path / "test" / "fmri" / "sub-02" / "c" / "0" / "0" / "0" / "0"
    content = bytearray(shard.read_bytes())
    content[100:400] = bytes(300)
    shard.write_bytes(content)
    with pytest.raises(
        DataError,
        match=r"made\.zarr: array test/fmri/sub-02 cannot be read, the store is damaged \(.+\)",
    ) as caught:
        inspect(store, progress=False)
    assert "\n" not in str(caught.value)


def test_all_subjects_are_looked_at(healthy):
    assert tuple(inspect(healthy, progress=False).signals) == SUBJECTS
