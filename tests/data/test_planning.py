"""Which volumes make which samples, without a file."""

from dataclasses import replace
from pathlib import Path

import pytest

from glfa_jax.config import Cleaning
from glfa_jax.data import DataError
from glfa_jax.data.layouts import Problems, Run, Trial
from glfa_jax.data.planning import (
    plan,
    same_repetition_time,
    without_shared_clips,
)
from glfa_jax.data.signals import Signal
from glfa_jax.data.windows import first_volume
from tests.data.conftest import settings

DATA = settings(Path("root"), Path("store"))  # lag 4 s, window 3


def run(subject="01", name="1", split="train", trials=(("a", 0.0, 1),), tr=2.0, start=0.0, tail=0):
    scan = Path(f"{subject}-{name}.gii")
    return Run(
        subject=subject,
        name=name,
        split=split,
        repetition_time=tr,
        start_time=start,
        trials=tuple(Trial(clip, onset, 2.0, repeat) for clip, onset, repeat in trials),
        scans=(scan,),
        files=(scan,),
        blocks=lambda: iter(()),
        tail=tail,
    )


def signal(volumes=10, tail=0, censored=()):
    return Signal(Path("nowhere"), volumes, tail, 0, 1.0, {}, (), censored)


def planned(*runs, volumes=10, data=DATA, unreadable=(), skip=False):
    problems = Problems(skip=skip)
    made = plan(
        [(each, signal(volumes)) for each in runs],
        data=data.model_copy(update={"subjects": tuple(dict.fromkeys(r.subject for r in runs))}),
        unreadable=dict.fromkeys(unreadable, "why"),
        problems=problems,
    )
    return made, problems.noted


def firsts(made, subject, split):
    shown = made.shown[subject, split]
    return {key: [window.first for window in windows] for key, windows in shown.items()}


TEST = run(name="9", split="test", trials=(("x", 0.0, 1),))


@pytest.mark.parametrize(
    ("onset", "start", "first"),
    [
        (0.0, 0.0, 2),  # lag 4 s, TR 2 s
        (0.9, 0.0, 2),
        (1.0, 0.0, 2),  # the earlier one of two equally near
        (1.1, 0.0, 3),
        (0.0, 1.0, 1),  # volumes show the middle of their time
        (0.0, 6.0, None),  # three volumes dropped: the nearest is the one before the first
        (0.0, 5.0, 0),  # two dropped, and the first one left is as near as the last one dropped
        (1.1, 6.0, 0),
    ],
)
def test_the_volume_nearest_to_onset_and_lag(onset, start, first):
    assert first_volume(onset, lag=4.0, start=start, step=2.0) == first


def test_a_window_begins_with_the_first_volume_without_lag():
    assert first_volume(0.0, lag=0.0, start=1.0, step=2.0) == 0
    assert first_volume(0.0, lag=0.0, start=2.0, step=2.0) == 0  # nothing was dropped


def test_events_beyond_the_end_where_events_come_from_tables():
    late = run(trials=(("a", 0.0, 1), ("b", 20.0, 1)))
    with pytest.raises(DataError, match=r"starts at 20 s, beyond the end of the run at 20 s"):
        planned(late, TEST)
    # The last volumes were dropped on purpose; where trials are known beforehand, they are missing.
    for of_late, data in (
        (replace(late, dropped=(0, 1)), DATA),
        (late, DATA.model_copy(update={"layout": "fudan"})),
    ):
        made, _ = planned(of_late, TEST, data=data)
        assert firsts(made, "01", "train") == {("a", 1): [2], ("b", 1): []}
        assert [cut.missing for cut in made.cuts] == [1, 0]


def test_dropped_first_volumes_count_for_the_end_of_the_run():
    late = run(trials=(("a", 2.0, 1), ("b", 23.0, 1)), start=4.5)
    made, _ = planned(late, TEST)
    assert firsts(made, "01", "train") == {("a", 1): [1], ("b", 1): []}
    with pytest.raises(DataError, match="beyond the end of the run at 24 s"):
        planned(run(trials=(("a", 2.0, 1), ("b", 24.0, 1)), start=4.5), TEST)


def test_windows_may_reach_to_the_end_and_no_further():
    made, _ = planned(run(trials=(("a", 10.0, 1), ("b", 10.0 + 1.5, 1))), TEST)
    assert firsts(made, "01", "train") == {("a", 1): [7], ("b", 1): []}


def test_train_showings_are_samples_and_test_repeats_are_one():
    made, _ = planned(
        run(trials=(("a", 0.0, 1), ("b", 4.0, 1))),
        run(name="2", trials=(("a", 2.0, 2),)),
        run(name="3", split="test", trials=(("x", 4.0, 2), ("y", 0.0, 2))),
        run(name="4", split="test", trials=(("y", 2.0, 1), ("x", 0.0, 1), ("x", 16.0, 3))),
        run(subject="02", trials=(("c", 0.0, 1), ("a", 4.0, 1))),
    )
    assert made.keys == {
        "train": [("a", 1), ("b", 1), ("a", 2), ("c", 1)],
        "test": [("x", -1), ("y", -1)],
    }
    assert firsts(made, "01", "test") == {("x", -1): [2, 4], ("y", -1): [3, 2]}  # by repeat
    assert made.shown["02", "test"] == {}
    assert (made.repeats("01"), made.repeats("02")) == (2, 0)


def test_what_cannot_be_used_is_left_out_and_noted():
    made, noted = planned(
        run(),
        run(name="2", trials=(("a", 0.0, 1), ("b", 2.0, 1))),  # a again, under the same repeat
        run(name="3", trials=(("c", 99.0, 1),)),
        run(name="4", trials=(("bad", 0.0, 1),)),
        TEST,
        run(subject="02", name="5", trials=(("bad", 0.0, 1),)),
        run(subject="02", name="6", split="test", trials=(("z", 0.0, 1),)),
        unreadable=("bad",),
        skip=True,
    )
    assert made.subjects == ("01",)
    assert made.keys == {"train": [("a", 1), ("b", 1)], "test": [("x", -1)]}
    assert [cut.run.name for cut in made.cuts] == ["1", "2", "4", "9"]
    assert [sentence.split(":")[0] for sentence in noted] == [
        "sub-01 run 3",
        "sub-01 run 2",
        "sub-02",
    ]


def test_a_run_shorter_than_a_window():
    with pytest.raises(DataError, match="sub-01 run 1: 2 volumes, a window needs 3"):
        planned(run(), TEST, volumes=2)


@pytest.mark.parametrize("skip", [False, True])
def test_both_splits_are_needed(skip):
    with pytest.raises(DataError, match="no test run of the study can be used"):
        planned(run(), skip=skip)
    with pytest.raises(DataError, match="no usable subject" if skip else "no complete train"):
        planned(TEST, skip=skip)


def test_the_repetition_time_of_most_runs_holds():
    runs = [run(name="1", tr=1.5), run(name="2"), run(name="3")]
    message = r"01-1\.gii: repetition time 1\.5 s, but 2\.0 s in 01-2\.gii"
    with pytest.raises(DataError, match=message):
        same_repetition_time(runs, Problems(skip=False))
    problems = Problems(skip=True)
    assert same_repetition_time(runs, problems) == runs[1:]
    assert len(problems.noted) == 1


def test_a_clip_of_both_splits_never_stays_in_training():
    runs = [run(trials=(("x", 0.0, 1), ("b", 2.0, 1))), TEST]
    with pytest.raises(DataError, match="clip x is shown in train and in test runs"):
        without_shared_clips(runs, Problems(skip=False))
    train, test = without_shared_clips(runs, Problems(skip=True))
    assert [trial.clip for trial in train.trials] == ["b"]
    assert test == TEST


@pytest.mark.parametrize(
    ("onset", "start", "first"),
    [
        (-4.0, 0.0, 0),  # BIDS counts from the first volume: the lag makes up for it
        (-4.9, 0.0, 0),
        (-5.1, 0.0, None),
        (-3.1, 2.0, None),  # volumes show the middle of their time, or later
        (-100.0, 0.0, None),
    ],
)
def test_a_trial_before_the_scan_has_a_window_where_volumes_were_taken(onset, start, first):
    assert first_volume(onset, lag=4.0, start=start, step=2.0) == first


def test_a_repetition_time_of_more_digits_is_the_same():
    runs = [run(name="1", tr=0.72), run(name="2", tr=0.7200001)]
    assert same_repetition_time(runs, Problems(skip=False)) == runs


def test_trials_that_share_a_window_are_noted():
    trials = (("a", 0.0, 1), ("b", 0.9, 1), ("c", 4.0, 1), ("d", 4.2, 1), ("e", 4.3, 1))
    _, noted = planned(run(trials=trials), TEST)
    assert noted == [
        "sub-01 run 1: clips a and b begin within one volume and have the same window, and 1 more "
        "such windows"
    ]
    assert planned(run(trials=(("a", 0.0, 1), ("b", 2.0, 1))), TEST)[1] == []


def test_windows_that_were_censored_are_left_out_but_no_test_clip():
    """Of windows of three volumes, from volume 2 on and from volume 5 on."""
    trials = (("a", 0.0, 1), ("b", 6.0, 1))
    shown = (("x", 0.0, 1), ("y", 6.0, 1))
    again = (("x", 0.0, 2), ("y", 6.0, 2))
    runs = [
        (run(name="1", trials=trials), signal(censored=(5,))),
        (run(name="2", split="test", trials=shown), signal(censored=(2, 6))),
        (run(name="3", split="test", trials=again), signal(censored=(7,))),
    ]
    problems = Problems(skip=False)
    data = DATA.model_copy(update={"subjects": ("01",)})
    made = plan(runs, data=data, unreadable={}, problems=problems)
    assert firsts(made, "01", "train") == {("a", 1): [2], ("b", 1): []}
    assert made.cuts[0].missing == 0
    assert [w.repeat for w in made.shown["01", "test"]["x", -1]] == [2]
    assert [w.repeat for w in made.shown["01", "test"]["y", -1]] == [1, 2]
    assert [note.split(":")[1] for note in problems.noted] == [
        " training samples are left out, 1 of them",
        " showings of test clips are left out, 1 of them",
        " test clips without a better showing are kept, 1 of them",
    ]
    patient = data.model_copy(update={"clean": Cleaning(most_censored=0.4)})
    made = plan(runs, data=patient, unreadable={}, problems=Problems(skip=False))
    assert firsts(made, "01", "train") == {("a", 1): [2], ("b", 1): [5]}
