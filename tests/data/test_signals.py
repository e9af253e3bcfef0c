"""A run's values to z-scores: the same however the run is cut into blocks."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy.sparse import csr_array

from glfa_jax.data import DataError
from glfa_jax.data.layouts import Run
from glfa_jax.data.signals import Pixels, ReadRun, Signal

VALUES, VOLUMES, TAIL = 30, 12, 2
RNG = np.random.default_rng(0)
SERIES = (100 + RNG.normal(size=(VOLUMES, VALUES))).astype(np.float32)
WEIGHTS = csr_array(np.where(RNG.random((9, VALUES)) < 0.2, RNG.random((9, VALUES)), 0))


class Drawn:
    """As much of a flat map as is needed: 9 of 16 pixels are cortex."""

    mask = np.arange(16).reshape(4, 4) % 16 < 9
    weights = csr_array(np.concatenate([WEIGHTS.toarray(), np.zeros((7, VALUES))]))
    sides = (18, 12)
    walls = ()


def blocks(series, sizes):
    start = 0
    for size in sizes:
        yield series[start : start + size]
        start += size


def task(tmp_path, series=SERIES, sizes=(VOLUMES,), tail=TAIL):
    scans = tuple(tmp_path / f"{side}.gii" for side in "LR")
    for scan in scans:
        if not scan.exists():
            scan.write_bytes(b"scan")
    run = Run("01", "1", "train", 2.0, 0.0, (), scans, scans, partial(blocks, series, sizes), tail)
    return ReadRun(run, Pixels.of(Drawn))


def written(tmp_path, **changes):
    piece = tmp_path / "runs" / str(len(list(tmp_path.glob("runs/*"))))
    task(tmp_path, **changes).write(piece)
    return Signal.read(piece)


def test_z_scores_are_over_the_volumes_before_the_tail(tmp_path):
    signal = written(tmp_path)
    pixels = SERIES.astype(np.float64) @ WEIGHTS.toarray().T
    kept = pixels[:-TAIL]
    expected = (pixels - kept.mean(axis=0)) / kept.std(axis=0, ddof=1)
    np.testing.assert_allclose(signal.window(0, VOLUMES), expected, atol=2e-4)
    np.testing.assert_array_equal(signal.window(4, 3), signal.window(0, VOLUMES)[4:7])
    assert (signal.volumes, signal.kept) == (VOLUMES, VOLUMES - TAIL)
    np.testing.assert_allclose(signal.mean, kept.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(signal.tsnr, kept.mean(axis=0) / kept.std(axis=0, ddof=1), rtol=1e-4)
    level = kept.mean(axis=1)
    np.testing.assert_allclose(signal.course, 100 * (level / level.mean() - 1), atol=1e-4)
    assert signal.peak == pytest.approx(np.abs(expected[:-TAIL]).max(), abs=1e-3)


def test_what_is_in_the_tail_changes_no_other_volume(tmp_path):
    other = SERIES.copy()
    other[-TAIL:] = 7
    one, two = written(tmp_path), written(tmp_path, series=other)
    np.testing.assert_array_equal(one.window(0, one.kept), two.window(0, two.kept))
    assert (one.window(one.kept, TAIL) != two.window(two.kept, TAIL)).all()


@pytest.mark.parametrize("sizes", [(1,) * VOLUMES, (5, 5, 2), (11, 1)])
def test_blocks_of_any_size_give_the_same_bits(tmp_path, sizes, monkeypatch):
    monkeypatch.setattr("glfa_jax.data.scores.COLUMNS", 4)
    whole, parts = written(tmp_path), written(tmp_path, sizes=sizes)
    np.testing.assert_array_equal(whole.window(0, VOLUMES), parts.window(0, VOLUMES))
    np.testing.assert_array_equal(whole.course, parts.course)


def test_only_values_that_are_drawn_must_be_finite(tmp_path):
    drawn = np.zeros(VALUES, bool)
    drawn[WEIGHTS.indices] = True
    assert 0 < drawn.sum() < VALUES
    hidden = SERIES.copy()
    hidden[:, ~drawn] = np.nan
    np.testing.assert_array_equal(
        written(tmp_path, series=hidden).window(0, 5), written(tmp_path).window(0, 5)
    )
    right = np.flatnonzero(drawn & (np.arange(VALUES) >= 18))[:2]
    seen = SERIES.copy()
    seen[7, right] = np.inf
    with pytest.raises(DataError, match=r"R\.gii: not finite at 2 places of .* in volume 7 "):
        written(tmp_path, series=seen, sizes=(5, 5, 2))


def test_runs_of_another_kind_are_rejected(tmp_path):
    with pytest.raises(DataError, match=r"L\.gii: 29 values a volume, the flat map takes 18 \+ 12"):
        written(tmp_path, series=SERIES[:, 1:])
    with pytest.raises(DataError, match=r"L\.gii: 1 volumes, at least 2 are needed"):
        written(tmp_path, series=SERIES[:3], sizes=(3,))
    with pytest.raises(DataError, match="0 volumes, at least 2 are needed"):
        written(tmp_path, series=SERIES[:0], sizes=(), tail=0)
    assert list(tmp_path.glob("runs/*")) == []


def test_a_constant_pixel_is_zero_throughout(tmp_path):
    still = SERIES.copy()
    still[:-TAIL] = 3  # the tail moves
    signal = written(tmp_path, series=still)
    assert not signal.window(0, VOLUMES).any()
    assert not signal.tsnr.any()
    assert signal.silent == 9


def test_the_key_changes_with_whatever_the_piece_is_made_of(tmp_path):
    same = task(tmp_path).key
    assert task(tmp_path).key == same
    others = [task(tmp_path, tail=1).key, task(tmp_path, sizes=(6, 6)).key]
    (tmp_path / "L.gii").write_bytes(b"other scan")
    others.append(task(tmp_path).key)
    thicker = csr_array(2 * WEIGHTS)
    run = task(tmp_path).run
    others.append(ReadRun(run, Pixels(np.arange(VALUES), thicker, Drawn.sides)).key)
    assert len({same, *others}) == 5


class Failing:
    """A reader with a mistake of its own."""

    def __call__(self):
        yield SERIES[:3]
        raise KeyError("odd")


def test_whatever_a_reader_raises_is_said_of_its_file(tmp_path):
    failing = task(tmp_path)
    failing = replace(failing, run=replace(failing.run, blocks=Failing()))
    with pytest.raises(DataError, match=r"L\.gii: truncated or no scan \('odd'\)"):
        failing.write(tmp_path / "runs" / "a")
    assert list(tmp_path.glob("runs/*")) == []


def test_each_hemisphere_must_fit_its_mesh(tmp_path):
    whole = task(tmp_path)
    for sides, says in (
        ((12, 18), r"12 \+ 18 values .* takes 18 \+ 12"),
        ((18, 11), r"18 \+ 11 val"),
    ):
        exchanged = replace(whole, run=replace(whole.run, sides=sides))
        with pytest.raises(DataError, match=rf"L\.gii: {says}"):
            exchanged.write(tmp_path / "runs" / "a")
    replace(whole, run=replace(whole.run, sides=(18, 12))).write(tmp_path / "runs" / "a")


def test_what_seems_wrong_is_noted_with_the_piece(tmp_path):
    walls = (np.arange(15) < 5, np.arange(15) >= 9)
    for halves, count in ((walls, 0), (walls[::-1], 2)):
        series = SERIES.copy()
        series[:, np.concatenate(halves)] = 0
        one = task(tmp_path, series=series)
        pixels = replace(one.pixels, sides=(15, 15), walls=walls)
        piece = tmp_path / "runs" / str(count)
        replace(one, pixels=pixels).write(piece)
        assert len(Signal.read(piece).notes) == count
        assert replace(one, pixels=pixels).key != one.key
