"""Rows of one clip a subject: what is shown how often, by whom, whatever subjects lack."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glfa_jax.data.coverage import Mixed, Rotation


def epochs(rotation: Rotation, count: int) -> list[np.ndarray]:
    """The first `count` epochs as (row, subject)."""
    lengths = [rotation.epoch_rows[e % len(rotation.epoch_rows)] for e in range(count)]
    rows = np.stack([rotation[row] for row in range(sum(lengths))])
    return np.split(rows, np.cumsum(lengths)[:-1])


@pytest.mark.parametrize(("clips", "subjects"), [(12, 3), (6, 2), (20, 5)])
def test_an_epoch_shows_each_clip_once_and_all_subjects_serve_it_in_turn(clips, subjects):
    shown = epochs(Rotation(np.ones((clips, subjects), bool), seed=1), 2 * subjects)
    for epoch in shown:
        assert sorted(epoch.ravel().tolist()) == list(range(clips))
    for start in (0, subjects):
        whole = np.concatenate(shown[start : start + subjects])
        assert all(sorted(column) == list(range(clips)) for column in whole.T.tolist())
    # Not by the same subjects in the same order again.
    assert not np.array_equal(shown[0], shown[subjects])


@settings(max_examples=40, deadline=None)
@given(
    clips=st.integers(4, 30), subjects=st.integers(2, 4), lack=st.floats(0, 0.6), seed=st.integers()
)
def test_whatever_subjects_lack_every_clip_that_one_has_is_shown(clips, subjects, lack, seed):
    rng = np.random.default_rng(abs(seed))
    present = rng.random((clips, subjects)) >= lack
    present[rng.integers(clips, size=subjects), np.arange(subjects)] = True
    seen = set(np.flatnonzero(present.any(axis=1)).tolist())
    shown = epochs(Rotation(present, seed=seed), subjects)
    for epoch in shown:
        assert set(epoch.ravel().tolist()) == seen
        assert all(present[epoch[:, j], j].all() for j in range(subjects))
    whole = np.concatenate(shown)
    for j in range(subjects):
        assert set(whole[:, j].tolist()) == set(np.flatnonzero(present[:, j]).tolist())


@settings(max_examples=40, deadline=None)
@given(clips=st.integers(3, 40), subjects=st.integers(2, 3), seed=st.integers(0, 99))
def test_clips_of_a_row_differ_and_no_more_repeat_than_must(clips, subjects, seed):
    for epoch in epochs(Rotation(np.ones((clips, subjects), bool), seed=seed), subjects):
        assert all(len(set(row)) == subjects for row in epoch.tolist())
        assert epoch.size - clips < subjects


def test_subjects_with_clips_of_their_own_show_nothing_else():
    present = np.zeros((9, 2), bool)
    present[:6, 0] = present[6:, 1] = True
    first, second = epochs(Rotation(present, seed=0), 2)
    for epoch in (first, second):
        assert sorted(epoch[:, 0].tolist()) == [0, 1, 2, 3, 4, 5]
        assert sorted(epoch[:, 1].tolist()) == [6, 6, 7, 7, 8, 8]
    assert not np.array_equal(first, second)


def test_rows_are_a_function_of_seed_and_number():
    present = np.random.default_rng(0).random((30, 3)) > 0.2
    order = np.random.default_rng(1).permutation(200)
    ours, theirs, other = (
        Rotation(present, seed=7),
        Rotation(present, seed=7),
        Rotation(present, seed=8),
    )
    forward = [ours[row].tolist() for row in range(200)]
    scattered = {int(row): theirs[int(row)].tolist() for row in order}
    assert forward == [scattered[row] for row in range(200)]
    assert forward != [other[row].tolist() for row in range(200)]


def test_the_first_rows_of_each_batch_are_paired():
    rotation = Rotation(np.ones((12, 3), bool), seed=0)
    mixed = Mixed(range(100, 200), rotation, rows=5, paired=2)
    rows = [mixed[index] for index in range(20)]
    assert [row.paired for row in rows] == [True, True, False, False, False] * 4
    pairs = [row.clips.tolist() for row in rows if row.paired]
    assert pairs == [[clip] * 3 for clip in range(100, 108)]
    others = [row.clips.tolist() for row in rows if not row.paired]
    assert others == [rotation[row].tolist() for row in range(12)]
