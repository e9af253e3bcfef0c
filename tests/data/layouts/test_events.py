"""events.tsv as other programs write it: what is dropped with a note, and what is rejected."""

import unicodedata

import pytest

from glfa_jax.data import DataError
from glfa_jax.data.layouts.events import read_events

HEADER = "onset\tduration\ttrial_type\tstim_file\trepeat\n"


@pytest.fixture
def read(tmp_path):
    """Split, trials as tuples, notes and what was told of rows that cannot be used."""

    def events(*rows: str, skip: bool = False):
        path = tmp_path / "events.tsv"
        path.write_text(HEADER + "".join(f"{row}\n" for row in rows))
        notes, told = [], []

        def failed(error):
            told.append(str(error).replace(f"{path}: ", ""))
            if not skip:
                raise error

        split, trials = read_events(path, stimuli=tmp_path / "stimuli", failed=failed, notes=notes)
        found = [(trial.clip, trial.onset, trial.duration, trial.repeat) for trial in trials]
        return split, found, [note.replace(f"{path}: ", "") for note in notes], told

    return events


GOOD = "6\t2\ttrain\tb.mp4\t1"


@pytest.mark.parametrize(
    ("row", "trial"),
    [
        ("0\t2\ttrain\ta.mp4\t1", ("a.mp4", 0.0, 2.0, 1)),
        ("-3.5\t2\ttrain\ta.mp4\t0", ("a.mp4", -3.5, 2.0, 0)),
        ("+.5\t2.\ttrain\tstimuli/a.mp4\t1.0", ("a.mp4", 0.5, 2.0, 1)),
        ("1e-1\t20E-1\ttrain\t./c/a.mp4\t2e0", ("c/a.mp4", 0.1, 2.0, 2)),
        ('"1"\t"2"\t"train"\t"a.mp4"\t"1"', ("a.mp4", 1.0, 2.0, 1)),
        ("  1.00\t 2.00\ttrain\ta.mp4 \t 1", ("a.mp4", 1.0, 2.0, 1)),
    ],
)
def test_numbers_in_every_notation_of_tables(read, row, trial):
    split, trials, notes, _ = read(row, GOOD)
    assert (split, trials, notes) == ("train", [trial, ("b.mp4", 6.0, 2.0, 1)], [])


WRONG = ("", "1_0", "nan", "inf", "-inf", "1,5", "1 0", "0x10", "1e300", "\uff11", "N/A", "1" * 400)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *((column, value) for column in ("onset", "duration", "repeat") for value in WRONG),
        *(("duration", value) for value in ("0", "-1", "86401", "1e-4", "0.0")),
        *(("onset", value) for value in ("86401", "-86401")),
        *(("repeat", value) for value in ("1.5", "-1", "n/a")),
        *(("stim_file", value) for value in (".", "n/a", "", "../a.mp4", "/a.mp4")),
        *(("trial_type", value) for value in ("Train", "train\u00a0", "TEST", "tEst ")),
    ],
)
def test_a_row_that_makes_no_sense_costs_its_trial_and_no_other(read, column, value):
    cells = {"onset": "0", "duration": "2", "trial_type": "train", "stim_file": "a", "repeat": "1"}
    row = "\t".join((cells | {column: value}).values())
    with pytest.raises(DataError, match=rf"events\.tsv: line 2: {column} must ") as caught:
        read(row, GOOD)
    assert len(str(caught.value).partition("line 2")[2]) < 150
    _, trials, notes, told = read(row, GOOD, skip=True)
    assert [clip for clip, *_ in trials] == ["b.mp4"]
    assert len(told) == 1
    assert notes == []


def test_the_right_digits_are_told_from_a_long_row_of_wrong_ones_at_once(read):
    with pytest.raises(DataError, match="line 2: onset must be"):
        read(f"{'1' * 130_000}x\t2\ttrain\ta.mp4\t1")


def test_rows_without_onset_are_noted(read):
    rows = [f"n/a\t2\ttrain\t{clip}.mp4\t1" for clip in "wxyz"]
    _, trials, notes, _ = read(rows[0], GOOD)
    assert ([clip for clip, *_ in trials], notes) == (
        ["b.mp4"],
        ["line 2: onset is n/a, left out"],
    )
    assert read(*rows, GOOD)[2] == ["lines 2, 3 and 2 more: onset is n/a, left out"]
    with pytest.raises(DataError, match="lists no trials"):
        read(*rows)


def test_a_duration_left_open_is_that_of_the_others_else_the_time_to_the_next(read):
    rows = [f"{onset}\tn/a\ttrain\t{onset}.mp4\t1" for onset in (0, 4, 9)]
    _, trials, notes, _ = read(*rows[:2], "6\t2\ttrain\tb.mp4\t1", "20\t3\ttrain\tc.mp4\t1")
    assert [duration for *_, duration, _ in trials] == [2.5, 2.5, 2.0, 3.0]
    assert notes == ["lines 2 and 3: duration is n/a, taken as 2.5 s, the median of the others"]
    _, trials, notes, _ = read(*rows)
    assert [duration for *_, duration, _ in trials] == [4.5, 4.5, 4.5]
    assert notes[0].endswith("taken as 4.5 s, the median time to the next onset")
    with pytest.raises(DataError, match="line 2: duration must be a number, is 'n/a'"):
        read(rows[0])


def test_rows_of_other_kinds_are_left_out_and_counted(read):
    split, trials, notes, _ = read(
        "n/a\tn/a\tfixation\tn/a\tn/a",
        "0\t2\ttest\ta.mp4\t1",
        "1.2\t0\tn/a\tn/a\tn/a",
        "1.3\t0\tn/a\tn/a\tn/a",
    )
    assert (split, [clip for clip, *_ in trials]) == ("test", ["a.mp4"])
    assert notes == [
        "rows whose trial_type is neither train nor test are left out: fixation (1), n/a (2)"
    ]


@pytest.mark.parametrize("kinds", [("train", "test"), ("rest",), ("Train", "Train"), ("n/a",)])
def test_a_run_is_of_one_split(read, kinds):
    rows = [f"{3 * i}\t2\t{kind}\t{i}.mp4\t1" for i, kind in enumerate(kinds)]
    with pytest.raises(
        DataError, match=f"trial_type must be train or test throughout, is {kinds[0]}"
    ):
        read(*rows, skip=True)


@pytest.mark.parametrize("clip", ["a.mp4", "c.mp4"])
@pytest.mark.parametrize("later", ["0", "0.0004"])
def test_two_trials_of_one_onset_are_rejected(read, clip, later):
    rows = ("0\t2\ttrain\ta.mp4\t1", GOOD, f"{later}\t2\ttrain\t{clip}\t2")
    with pytest.raises(DataError, match="lines 2 and 4: two trials with one onset, 0 s; every"):
        read(*rows)
    _, trials, notes, told = read(*rows, skip=True)
    assert ([each[0] for each in trials], len(told), notes) == (["b.mp4"], 1, [])


@pytest.mark.parametrize(
    ("rows", "note"),
    [
        ([(0, 2), (2, 2)], None),
        ([(0, 2.01), (2, 2.01), (4, 2)], None),  # rounded
        ([(0, 2.5), (2, 2)], "lines 2 and 3: the trials overlap by 0.5 s"),
        ([(2, 2), (0, 2.5)], "lines 2 and 3: the trials overlap by 0.5 s"),
        (
            [(0, 9), (2, 2), (6, 2)],
            "lines 2 and 3: the trials overlap by 7 s, and 1 more such pairs",
        ),
    ],
)
def test_overlapping_trials_are_noted(read, rows, note):
    lines = [f"{onset}\t{long}\ttrain\t{onset}.mp4\t1" for onset, long in rows]
    _, trials, notes, _ = read(*lines)
    assert [each[1] for each in trials] == [onset for onset, _ in rows]
    assert notes == ([note] if note else [])


def test_accents_are_matched_where_one_file_alone_can_be_meant(read, tmp_path):
    apart = {
        form: unicodedata.normalize(form, "caf\u00e9/\u00fcber.mp4") for form in ("NFC", "NFD")
    }
    row = f"0\t2\ttrain\t{apart['NFC']}\t1"
    assert read(row)[1][0][0] == apart["NFC"]  # no such file in any form
    place = tmp_path / "stimuli" / apart["NFD"]
    place.parent.mkdir(parents=True)
    place.touch()
    assert read(row)[1][0][0] == apart["NFD"]
    other = tmp_path / "stimuli" / apart["NFC"]
    other.parent.mkdir(exist_ok=True)
    other.touch()
    assert read(row)[1][0][0] == apart["NFC"]
