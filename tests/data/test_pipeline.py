"""Batches: contract, order, resuming, processes, augmentation."""

import json

import numpy as np
import pytest

from glfa_jax.data import DataError, pipeline, rows
from glfa_jax.data.pipeline import Augment, batches, volumes

# Clips and frames of the first batches of seed 0.
PINNED = [(1, 1), (2, 1), (4, 0), (5, 0), (3, 0), (0, 1), (5, 0), (3, 1)]
CROP = Augment(crop_probability=0.5, crop_fraction=0.8)


def tokenize(captions):
    """The words' lengths: enough to see which caption it was and whether it was reworded."""
    tokens = np.zeros((len(captions), 12), np.int32)
    for row, caption in zip(tokens, captions, strict=True):
        lengths = [len(word) * 1000 + ord(word[0]) for word in caption.split()]
        row[: len(lengths)] = lengths
    return tokens


def train(store, **changes):
    options = {
        "subjects": ["01", "02"], "split": "train", "batch_size": 4, "seed": 0,
        "tokenize": tokenize, "augment": None, "shuffle": True, "repeat": True,
    }  # fmt: skip
    return batches(store, **{**options, **changes})


def take(stream, count):
    return [next(stream) for _ in range(count)]


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        for x, y in zip(present(a), present(b), strict=True):
            np.testing.assert_array_equal(x, y)


def present(batch):
    """A batch's fields but the latents, which these have not."""
    assert batch.latents is None
    return batch[:-1]


@pytest.fixture(params=["in memory", "from disk"])
def anywhere(request, monkeypatch):
    if request.param == "from disk":
        monkeypatch.setattr(rows, "CACHE_BYTES", 0)


def test_batch_keeps_the_contract(store, anywhere):
    batch = next(train(store))
    assert batch.fmri.shape == (2, 2, 3, 32, 32)
    assert batch.video.shape == (2, 1, 2, 16, 16, 3)
    assert batch.tokens.shape == (2, 1, 12)
    assert batch.clip.shape == (2, 1)
    assert batch.paired.tolist() == [True, True]
    types = ["float32", "float32", "int32", "int32", "bool"]
    assert [x.dtype.name for x in present(batch)] == types
    assert -1 <= batch.video.min() < batch.video.max() <= 1
    clips = batch.clip[:, 0]
    np.testing.assert_array_equal(batch.fmri, store.fmri("train", clips, subjects=["01", "02"]))
    expected = store.video("train", clips) / np.float32(127.5) - 1
    np.testing.assert_allclose(batch.video[:, 0], expected, atol=1e-6)
    captions = [store.attributes.captions["train"][clip] for clip in clips]
    np.testing.assert_array_equal(batch.tokens[:, 0], tokenize(captions))


def test_every_epoch_shows_every_clip_once_in_another_order(store):
    clips = np.concatenate([b.clip[:, 0] for b in take(train(store), 12)]).reshape(4, 6)
    assert all(sorted(epoch) == list(range(6)) for epoch in clips.tolist())
    assert len({tuple(epoch) for epoch in clips.tolist()}) > 1


def test_the_order_stays_what_it_was(store):
    """If grain's random numbers have changed, pin the new ones: a run begun with the old ones
    cannot be continued bit for bit."""
    stream = train(store, augment=CROP)
    frames = store.video("train", range(6)).mean(axis=(2, 3, 4)) / 127.5 - 1
    seen = [
        (int(clip), int(np.abs(frames[clip] - video.mean()).argmin()))
        for batch in take(stream, 4)
        for clip, video in zip(batch.clip[:, 0], batch.video, strict=True)
    ]
    assert seen == PINNED


def test_evaluation_shows_all_test_clips_in_order(store):
    stream = train(store, split="test", batch_size=2, shuffle=False, repeat=False)
    assert stream.num_batches == 2
    assert [b.clip.tolist() for b in stream] == [[[0]], [[1]]]
    stream = train(store, subjects=["02"], split="train", batch_size=4, shuffle=False, repeat=False)
    assert [b.clip[:, 0].tolist() for b in stream] == [[0, 1, 2, 3], [4, 5]]


@pytest.mark.parametrize("paired_fraction", [1.0, 0.5])
@pytest.mark.parametrize("augment", [None, CROP])
def test_resume_equals_never_having_stopped(store, augment, paired_fraction, anywhere):
    stream = train(store, augment=augment, paired_fraction=paired_fraction)
    take(stream, 5)
    state = json.loads(json.dumps(stream.get_state()))
    expected = take(stream, 6)
    again = train(store, augment=augment, paired_fraction=paired_fraction)
    again.set_state(state)
    assert_same(take(again, 6), expected)


def test_a_stream_of_other_settings_cannot_be_continued(store):
    state = train(store).get_state()
    for changes in (
        {"seed": 1}, {"batch_size": 2}, {"subjects": ["02", "01"]}, {"augment": CROP},
        {"paired_fraction": 0.5},
    ):  # fmt: skip
        with pytest.raises(DataError, match="cannot be continued"):
            train(store, **changes).set_state(state)


def test_the_seed_decides(store):
    one, same, other = (
        [b.clip.tolist() for b in take(train(store, seed=seed), 9)] for seed in (0, 0, 1)
    )
    assert one == same
    assert one != other


@pytest.mark.parametrize("paired_fraction", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("augment", [None, CROP])
def test_batches_do_not_depend_on_the_number_of_processes(store, augment, paired_fraction):
    options = {"augment": augment, "paired_fraction": paired_fraction, "batch_size": 8}
    whole = take(train(store, **options), 4)
    parts = [take(train(store, **options, process_index=i, process_count=2), 4) for i in (0, 1)]
    joined = [
        type(a)(*(np.concatenate([x, y]) for x, y in zip(present(a), present(b), strict=True)))
        for a, b in zip(*parts, strict=True)
    ]
    assert_same(joined, whole)


@pytest.mark.parametrize("paired_fraction", [0.25, 0.0])
def test_other_rows_hold_a_clip_of_each_subject(store, paired_fraction, anywhere):
    stream = train(store, paired_fraction=paired_fraction, batch_size=8)
    for batch in take(stream, 8):
        assert batch.fmri.shape == (4, 2, 3, 32, 32)
        assert batch.video.shape == (4, 2, 2, 16, 16, 3)
        assert batch.tokens.shape == (4, 2, 12)
        assert batch.clip.shape == (4, 2)
        assert batch.paired.sum() == round(4 * paired_fraction)
        np.testing.assert_array_equal(batch.clip[:, 0] == batch.clip[:, 1], batch.paired)
        for i, subject in enumerate(["01", "02"]):
            clips = batch.clip[:, i]
            expected = store.fmri("train", clips, subjects=[subject])[:, 0]
            np.testing.assert_array_equal(batch.fmri[:, i], expected)
            expected = store.video("train", clips) / np.float32(127.5) - 1
            np.testing.assert_allclose(batch.video[:, i], expected, atol=1e-6)
            captions = [store.attributes.captions["train"][clip] for clip in clips]
            np.testing.assert_array_equal(batch.tokens[:, i], tokenize(captions))


def test_without_pairs_every_clip_is_shown_once_an_epoch_and_by_all_in_the_end(store):
    clips = np.concatenate(
        [b.clip for b in take(train(store, paired_fraction=0.0, batch_size=6), 4)]
    ).reshape(4, 3, 2)
    for epoch in clips:
        assert sorted(epoch.ravel().tolist()) == list(range(6))
    for pair in clips.reshape(2, 6, 2):
        assert all(sorted(column) == list(range(6)) for column in pair.T.tolist())


def test_a_paired_clip_looks_the_same_to_all_and_others_are_drawn_apart(store):
    apart = []
    for batch in take(train(store, paired_fraction=0.5, augment=CROP), 20):
        assert batch.video.shape == (2, 2, 1, 16, 16, 3)
        for x in (batch.video, batch.tokens):
            np.testing.assert_array_equal(x[0, 0], x[0, 1])
            apart.append((x[1, 0] != x[1, 1]).any())
    # Two samples may be showings of one clip.
    assert sum(apart) > 30


def test_one_subject_has_nothing_to_pair(store):
    whole, half = (
        take(train(store, subjects=["01"], paired_fraction=fraction), 4) for fraction in (1.0, 0.5)
    )
    assert_same(half, whole)


def test_only_training_may_mix(store):
    with pytest.raises(DataError, match="paired_fraction: must be 1"):
        train(store, paired_fraction=0.5, shuffle=False, repeat=False)


def test_augmentation_gives_one_frame_sometimes_cropped_and_other_words(store):
    plain = tokenize(store.attributes.captions["train"])
    frames = store.video("train", range(6)) / np.float32(127.5) - 1
    seen = {"frames": set(), "captions": set()}
    for batch in take(train(store, augment=CROP), 30):
        assert batch.video.shape == (2, 1, 1, 16, 16, 3)
        shown = (x[:, 0] for x in (batch.clip, batch.video, batch.tokens))
        for clip, video, tokens in zip(*shown, strict=True):
            # Clips of one grey: cropping leaves it, and the frame can be told by its brightness.
            distance = np.abs(frames[clip].mean(axis=(1, 2, 3)) - video.mean())
            assert distance.min() < 0.02
            seen["frames"].add((int(clip), int(distance.argmin())))
            seen["captions"].add(tuple(tokens))
            assert (tokens != plain[clip]).any()
    assert seen["frames"] == {(clip, frame) for clip in range(6) for frame in (0, 1)}
    assert len(seen["captions"]) > 20


def test_crop_keeps_the_fraction_and_the_probability():
    rng = np.random.default_rng(0)
    ramp = np.broadcast_to(np.arange(100, dtype=np.uint8)[:, None], (100, 50))
    clip = np.repeat(ramp[None, ..., None], 3, axis=-1)
    spans = np.array([np.ptp(rows.one_frame(clip, CROP, rng)) for _ in range(400)])
    cropped = spans < 90
    assert 0.42 < cropped.mean() < 0.58
    assert set(spans[~cropped].tolist()) == {99}
    assert spans[cropped].min() >= 78
    assert spans[cropped].max() <= 80


def test_clips_that_a_subject_lacks_are_left_out(store, monkeypatch):
    present = np.ones((6, 2), bool)
    present[2, 1] = False
    monkeypatch.setattr(
        type(store), "present", lambda *_, subjects, **__: present[:, : len(subjects)]
    )
    clips = {int(c) for b in take(train(store), 20) for c in b.clip[:, 0]}
    assert clips == {0, 1, 3, 4, 5}
    mixed = np.concatenate([b.clip for b in take(train(store, paired_fraction=0.0), 20)])
    assert [set(column) for column in mixed.T.tolist()] == [set(range(6)), clips]
    monkeypatch.setattr(type(store), "present", lambda *_, **__: np.zeros((6, 2), bool))
    with pytest.raises(DataError, match="no train clip was seen by all of 01, 02"):
        train(store)
    with pytest.raises(DataError, match="has no train sample of 01"):
        train(store, paired_fraction=0.0)


def test_batch_size_must_fit_the_subjects(store):
    with pytest.raises(DataError, match="5 is no multiple of 2 subjects x 1 processes"):
        train(store, batch_size=5)


def test_volumes_are_those_of_the_training_split(store, anywhere):
    stream = volumes(store, subjects=["02"], batch_size=9, seed=0)
    drawn = np.concatenate([batch["fmri"] for batch in take(stream, 4)])
    expected = store.fmri("train", range(6), subjects=["02"]).reshape(18, 32, 32)
    for epoch in (drawn[:18], drawn[18:]):
        matches = (epoch[:, None] == expected).all(axis=(2, 3))
        # Windows may overlap, so a volume may be there twice, but each is drawn as often as there.
        np.testing.assert_array_equal(
            matches.sum(axis=0), (expected[:, None] == expected).all(axis=(2, 3)).sum(axis=0)
        )
    assert not np.array_equal(drawn[:18], drawn[18:])


def test_volumes_resume(store):
    stream = volumes(store, subjects=["01", "02"], batch_size=5, seed=3)
    take(stream, 3)
    state = stream.get_state()
    expected = take(stream, 3)
    again = volumes(store, subjects=["01", "02"], batch_size=5, seed=3)
    again.set_state(state)
    for ours, theirs in zip(take(again, 3), expected, strict=True):
        np.testing.assert_array_equal(ours["fmri"], theirs["fmri"])


def test_what_is_no_number_is_rejected_before_training(store, monkeypatch):
    def average(*_, **__):
        raise DataError("not finite")

    monkeypatch.setattr(type(store), "average", average)
    train(store, split="test", batch_size=2, shuffle=False, repeat=False)  # needs none
    for stream in (train, lambda store: volumes(store, subjects=["01"], batch_size=4, seed=0)):
        with pytest.raises(DataError, match="not finite"):
            stream(store)


def test_windows_of_no_clip_are_rejected(store):
    with pytest.raises(DataError, match=r"a\.zarr: no train clip to take windows of"):
        pipeline.windows(store, subjects=["01"], clips=np.array([], int), batch_size=2, seed=0)
