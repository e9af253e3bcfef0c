"""Drift, motion and spikes: written with a table of confounds, and undone by the right cleaning."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.fft import dct
from scipy.sparse import csr_array

from glfa_jax.config import Censor, Cleaning, Confounds, Data, Simulation
from glfa_jax.data.cleaning.confounds import regressors
from glfa_jax.data.layouts import Problems, Run
from glfa_jax.data.layouts.reading import read_study
from glfa_jax.data.signals import Pixels, ReadRun, Signal
from glfa_jax.simulate import study
from glfa_jax.simulate.artefacts import Restless, asked
from glfa_jax.simulate.cortex import visual_cortex

WORLD = Simulation(
    subjects=1,
    train_runs=1,
    test_runs=1,
    test_repeats=1,
    clips_per_run=4,
    drift=1.0,
    motion=1.0,
    spikes=0.1,
)
VOLUMES = 200
NONE = {"drift": 0.0, "motion": 0.0, "spikes": 0.0}


@pytest.fixture(scope="module")
def thin():
    cortex = visual_cortex()
    few = {name: getattr(cortex, name)[::20] for name in ("vertices", "side", "canonical")}
    return replace(cortex, **few)


def artefacts(cortex, **changes):
    world = WORLD.model_copy(update=changes)
    return Restless(world, cortex, index=0).run(VOLUMES)


def test_each_has_its_size_and_leaves_the_others_alone(thin):
    alone = {}
    for name in ("drift", "motion"):
        only = NONE | {name: 0.5}
        alone[name] = artefacts(thin, **only).added
        assert np.sqrt(np.mean(alone[name] ** 2)) == pytest.approx(0.5)
    both = artefacts(thin, **NONE | {"drift": 0.5, "motion": 0.5})
    np.testing.assert_allclose(both.added, alone["drift"] + alone["motion"], atol=1e-12)
    power = dct(alone["drift"], axis=0) ** 2
    slow = np.arange(VOLUMES) / (2 * VOLUMES) < 0.01
    assert power[slow].sum() > 0.999 * power.sum()
    spikes = artefacts(thin, **NONE | {"spikes": 0.05}).added
    assert 4 <= (np.abs(spikes).max(axis=1) > 1).sum() <= 30
    assert not asked(Simulation())


@pytest.fixture(scope="module")
def root(tmp_path_factory, thin):
    folder = tmp_path_factory.mktemp("restless") / "study"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "visual_cortex", lambda: thin)
        study.write_study(WORLD, folder, progress=False)
    return folder


@pytest.mark.parametrize(
    "given",
    [
        {"strategy": "simple", "motion": "basic"},
        {"strategy": "scrubbing", "motion": "basic", "wm_csf": "basic"},
        {"parts": ("high_pass", "motion", "global_signal"), "motion": "derivatives"},
        {"columns": ("trans_*", "white_matter")},
    ],
)
def test_the_table_is_one_that_strategies_take(root, given):
    data = Data(root=root, store=root / "s", subjects=("01",))
    run, *_ = read_study(data, Problems(skip=False)).runs
    cleaning = Cleaning(confounds=Confounds(**given))
    found, kept = regressors(run, cleaning, volumes=28)
    assert found.shape[0] == 28
    assert found.shape[1] >= 6
    assert kept.all() == ("scrubbing" not in given.values())
    assert "desc-confounds_timeseries" in (root / "README").read_text(encoding="utf-8")


def test_the_right_cleaning_brings_back_the_signal(tmp_path, thin):
    """Correlation of z-scores with those of the signal alone: higher with cleaning, and lower
    where it takes the signal out."""
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(VOLUMES + 2, len(thin.side)))
    signal = (signal[2:] + signal[1:-1] + signal[:-2]) / np.sqrt(3)
    head = Restless(WORLD.model_copy(update={"spikes": 0.04}), thin, index=0)
    spoilt = head.run(VOLUMES)
    bold = 1000 + 10 * (signal + spoilt.added)
    table = tmp_path / "sub-01_task-clips_run-01_desc-confounds_timeseries.tsv"
    head.write_confounds(table, spoilt, bold)
    scan = tmp_path / "sub-01_task-clips_run-01_bold.func.gii"
    scan.write_bytes(b"")
    count = len(thin.side)
    pixels = Pixels(np.arange(count), csr_array(np.eye(count, dtype=np.float32)), (count,))
    run = Run("01", "01", "train", 1.0, 0.0, (), (scan,), (), Held(bold), confounds=table)
    right = Cleaning(
        polynomial=4,
        confounds=Confounds(columns=("trans_?", "rot_?", "*t_?_derivative1", "*s_?_derivative1")),
        censor=Censor(framewise_displacement=0.5),
    )
    agreement = {}
    for name, cleaning in (
        ("none", Cleaning()),
        ("right", right),
        ("wrong", Cleaning(low_pass_hz=0.02)),
    ):
        ReadRun(run, pixels, cleaning).write(tmp_path / name)
        found = Signal.read(tmp_path / name)
        kept = np.setdiff1d(np.arange(VOLUMES), found.censored)
        z = found.window(0, VOLUMES)[kept]
        scaled = (signal - signal.mean(axis=0)) / signal.std(axis=0)
        agreement[name] = float(np.mean(z * scaled[kept]))
    assert agreement["right"] > agreement["none"] + 0.4
    assert agreement["wrong"] < agreement["none"]


class Held:
    """A reader of what is in memory."""

    def __init__(self, series):
        self.series = series.astype(np.float32)

    def __call__(self):
        yield self.series
