"""What cleaning makes of a run, against nilearn's own on the vertices."""

import numpy as np
import pytest
from nilearn import signal
from nilearn.interfaces.fmriprep import load_confounds, load_confounds_strategy

from glfa_jax.config import Censor, Cleaning, Confounds
from glfa_jax.data import DataError
from tests.data.cleaning.runs import (
    BEGIN,
    MOTION,
    SERIES,
    TAIL,
    TIME,
    TR,
    VOLUMES,
    WEIGHTS,
    cleaned,
    moved,
    run_in,
    table_in,
)

MANY = Confounds(columns=("*_?", "*_?_*", "csf*", "white*"))
POWERS = np.stack([TIME**order for order in (1, 2, 3, 4)], axis=1)
BAND = {"high_pass": 0.02, "low_pass": 0.1, "t_r": TR}


def own(**options):
    """nilearn's cleaning of the vertices, before anything is drawn."""
    return signal.clean(SERIES.astype(np.float64), standardize=None, **options)


def z_scored(vertices, counted):
    """Pixels of the vertices, over the volumes that count."""
    pixels = vertices @ WEIGHTS.toarray().T
    return (pixels - pixels[counted].mean(axis=0)) / pixels[counted].std(axis=0, ddof=1)


def agrees(found, vertices, kept=None):
    kept = np.arange(VOLUMES) if kept is None else kept
    expected = z_scored(vertices, kept < VOLUMES - TAIL)
    np.testing.assert_allclose(found.window(0, VOLUMES)[kept], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("cleaning", "options"),
    [
        (Cleaning(polynomial=4), {"detrend": False, "confounds": POWERS}),
        (Cleaning(polynomial=1), {"detrend": True}),
        (
            Cleaning(polynomial=1, cosine_seconds=50),
            {"detrend": True, "filter": "cosine", "high_pass": 1 / 50, "t_r": TR},
        ),
        (Cleaning(polynomial=1, high_pass_hz=0.02, low_pass_hz=0.1), {"detrend": True, **BAND}),
        (Cleaning(low_pass_hz=0.1), {"detrend": False, "low_pass": 0.1, "t_r": TR}),
    ],
)
def test_drift_and_filters_are_those_of_nilearn(tmp_path, cleaning, options):
    agrees(cleaned(run_in(tmp_path), cleaning, tmp_path), own(**options))


@pytest.mark.parametrize("filters", [False, True])
def test_a_strategy_takes_out_what_nilearn_loads(tmp_path, filters):
    table = table_in(tmp_path)
    given = Confounds(strategy="simple", motion="derivatives")
    cleaning = Cleaning(polynomial=1, confounds=given)
    if filters:
        cleaning = cleaning.model_copy(update={"high_pass_hz": 0.02, "low_pass_hz": 0.1})
    image = str(tmp_path / "sub-01_task-clips_space-a_desc-preproc_bold.nii.gz")
    loaded, _ = load_confounds_strategy(image, "simple", motion="derivatives")
    options = {"confounds": np.asarray(loaded)[BEGIN:], **(BAND if filters else {})}
    agrees(cleaned(run_in(tmp_path, table=table), cleaning, tmp_path), own(**options))


def test_columns_by_name_and_pattern(tmp_path):
    table = table_in(tmp_path)
    cleaning = Cleaning(confounds=Confounds(columns=("trans_?", "rot_?", "csf")))
    image = str(tmp_path / "sub-01_task-clips_desc-preproc_bold.nii.gz")
    loaded, _ = load_confounds(image, ("motion", "wm_csf"), motion="basic", wm_csf="basic")
    expected = np.asarray(loaded[[*MOTION, "csf"]])[BEGIN:]
    found = cleaned(run_in(tmp_path, table=table), cleaning, tmp_path)
    agrees(found, own(detrend=False, confounds=expected))


@pytest.mark.parametrize("filters", [False, True])
def test_censored_volumes_take_no_part(tmp_path, filters):
    jerks = [7, 8, 30, 31, 60]
    table = table_in(tmp_path, framewise_displacement=moved(*jerks))
    spoilt = SERIES.copy()
    spoilt[jerks] += 50
    kept = np.setdiff1d(np.arange(VOLUMES), jerks)
    censor = Censor(framewise_displacement=0.5)
    if filters:
        cleaning = Cleaning(polynomial=1, high_pass_hz=0.02, low_pass_hz=0.1, censor=censor)
        options = {"detrend": True, **BAND}
    else:
        cleaning = Cleaning(polynomial=4, censor=censor)
        options = {"detrend": False, "confounds": POWERS}
    one = cleaned(run_in(tmp_path, table=table), cleaning, tmp_path)
    agrees(one, own(**options, sample_mask=kept), kept)
    assert one.censored == tuple(jerks)
    assert one.quality["censored"] == len(jerks)
    # What they hold changes nothing, and they get what lies around them.
    (tmp_path / "other").mkdir()
    other = cleaned(run_in(tmp_path, series=spoilt, table=table), cleaning, tmp_path / "other")
    np.testing.assert_allclose(other.window(0, VOLUMES), one.window(0, VOLUMES), atol=1e-6)
    before, first, second, after = one.window(29, 4)
    np.testing.assert_allclose(first, (2 * before + after) / 3, atol=1e-6)
    np.testing.assert_allclose(second, (before + 2 * after) / 3, atol=1e-6)


def test_censored_ends_hold_the_nearest_volume(tmp_path):
    table = table_in(tmp_path, framewise_displacement=moved(0, 1, VOLUMES - 1))
    cleaning = Cleaning(low_pass_hz=0.1, censor=Censor(framewise_displacement=0.5))
    found = cleaned(run_in(tmp_path, table=table), cleaning, tmp_path).window(0, VOLUMES)
    np.testing.assert_allclose(found[:2], found[[2, 2]], atol=1e-6)
    np.testing.assert_allclose(found[-1], found[-2], atol=1e-6)
    inner = signal.clean(
        SERIES[2:-1].astype(np.float64), detrend=False, standardize=None, low_pass=0.1, t_r=TR
    )
    counted = np.arange(2, VOLUMES - 1) < VOLUMES - TAIL
    np.testing.assert_allclose(found[2:-1], z_scored(inner, counted), atol=1e-5)


def test_short_stretches_are_censored_with_what_bounds_them(tmp_path):
    table = table_in(tmp_path, framewise_displacement=moved(2, 20, 23))
    for shortest, expected in ((0, (2, 20, 23)), (3, (0, 1, 2, 20, 21, 22, 23))):
        censor = Censor(framewise_displacement=0.5, shortest=shortest)
        found = cleaned(run_in(tmp_path, table=table), Cleaning(censor=censor), tmp_path)
        assert found.censored == expected


def test_the_strategy_scrubbing_censors_by_itself_or_as_asked(tmp_path):
    table = table_in(tmp_path, framewise_displacement=moved(30, most=0.4))
    own_limits = Confounds(strategy="scrubbing", motion="basic", wm_csf="basic")
    one = cleaned(run_in(tmp_path, table=table), Cleaning(confounds=own_limits), tmp_path)
    assert one.censored == ()
    asked = Cleaning(confounds=own_limits, censor=Censor(framewise_displacement=0.3))
    assert cleaned(run_in(tmp_path, table=table), asked, tmp_path).censored == (30,)


def test_spikes_are_drawn_back_and_nothing_else(tmp_path):
    spoilt = SERIES.copy()
    spoilt[40] += 500
    quiet = Cleaning(polynomial=4, despike=1e3)
    one = cleaned(run_in(tmp_path), quiet, tmp_path).window(0, VOLUMES)
    plain = cleaned(run_in(tmp_path), Cleaning(polynomial=4), tmp_path).window(0, VOLUMES)
    np.testing.assert_allclose(one, plain, atol=1e-6)
    for cleaning, low, high in ((Cleaning(polynomial=4), 8, 9), (quiet, 8, 9)):
        found = cleaned(run_in(tmp_path, series=spoilt), cleaning, tmp_path)
        assert low < found.window(40, 1).max() < high
    despiked = cleaned(run_in(tmp_path, series=spoilt), Cleaning(despike=4.0), tmp_path)
    # Of 4 robust deviations; a spike also shifts the drift that it is measured from.
    assert despiked.window(40, 1).max() < 6


def test_drift_and_motion_are_measured_before_and_after(tmp_path):
    jerks = list(range(5, 70, 8))
    spoilt = SERIES.copy()
    spoilt[jerks] += 4
    table = table_in(tmp_path, framewise_displacement=moved(*jerks))
    cleaning = Cleaning(polynomial=4, censor=Censor(framewise_displacement=0.5))
    quality = cleaned(run_in(tmp_path, series=spoilt, table=table), cleaning, tmp_path).quality
    plain = cleaned(run_in(tmp_path), Cleaning(), tmp_path).quality
    assert plain["drift"] > 0.2
    assert abs(quality["drift_cleaned"]) < 0.06
    assert quality["motion"] > 0.4
    assert quality["tsnr_cleaned"] > quality["tsnr"]
    assert quality["displacement"] == pytest.approx((0.1 * 68 + 0.9 * 9) / 77)
    assert set(plain) == {"drift", "tsnr"}


def test_what_cannot_be_done_is_said_in_a_sentence(tmp_path):
    table = table_in(tmp_path)
    for given, says in (
        ({"polynomial": 78}, r"80 volumes, too few for data\.clean\.polynomial of order 78"),
        ({"low_pass_hz": 0.25}, r"low_pass_hz: must be below half the rate .* 0\.25 Hz"),
        ({"high_pass_hz": 0.3}, r"high_pass_hz: must be below .* 0\.25 Hz at a TR of 2 s, is 0\.3"),
        ({"cosine_seconds": 4}, r"cosine_seconds: must be more than two volumes, 4 s, is 4 s"),
        ({"polynomial": 50, "confounds": MANY}, r"leaves nothing of its 80 volumes"),
    ):
        with pytest.raises(DataError, match=says):
            cleaned(run_in(tmp_path, table=table), Cleaning(**given), tmp_path)
    jerks = moved(*range(VOLUMES))
    table = table_in(tmp_path, framewise_displacement=jerks)
    censor = Cleaning(censor=Censor(framewise_displacement=0.5))
    with pytest.raises(DataError, match=r"data\.clean censors all but 0 of its 80 volumes"):
        cleaned(run_in(tmp_path, table=table), censor, tmp_path)
    few = cleaned(run_in(tmp_path), Cleaning(polynomial=50), tmp_path)
    assert "leaves 29 of 80 degrees of freedom" in few.notes[0]
    assert list((tmp_path / "runs").iterdir()) == [few.piece]


def test_the_piece_changes_with_its_cleaning_and_its_table(tmp_path):
    table = table_in(tmp_path)
    keys = {cleaned(run_in(tmp_path, table=table), c, tmp_path).piece.name
            for c in (Cleaning(), Cleaning(polynomial=2), Cleaning(polynomial=3))}  # fmt: skip
    table_in(tmp_path, csf=["0.125"] * (BEGIN + VOLUMES))
    keys.add(cleaned(run_in(tmp_path, table=table), Cleaning(polynomial=3), tmp_path).piece.name)
    assert len(keys) == 4
