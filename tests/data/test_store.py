"""The prepared store: what is written is read, by us, zarr and xarray."""

import json

import numpy as np
import pytest
import xarray
import zarr

from glfa_jax.data import DataError
from glfa_jax.data.store import SHARD, Attributes, Store, shard_length

CLIPS = {"train": SHARD + 5, "test": 3}
RUNS = [
    {"subject": subject, "name": name, "split": split, "volumes": volumes, "missing": 0}
    for subject, name, split, volumes in [
        ("01", "1", "train", 7), ("01", "2", "test", 4), ("02", "1", "train", 6),
    ]
]  # fmt: skip
MASK = np.arange(64).reshape(8, 8) % 5 > 1


def attributes(**changes):
    values = {
        "subjects": ("01", "02"),
        "repetition_time": 1.5,
        "lag_seconds": 4.0,
        "window": 2,
        "clips": {split: [f"{i}.mp4" for i in range(n)] for split, n in CLIPS.items()},
        "captions": {split: [f"clip {i}" for i in range(n)] for split, n in CLIPS.items()},
        "clip_seconds": 2.0,
        "layout": "bids",
        "space": "fsaverage5",
        "repeats": {"01": 2, "02": 1},
        "runs": RUNS,
        "notes": ["sub-02 run 2: left out"],
        "fingerprint": "f",
        "identity": "i",
        "provenance": {"root": "somewhere"},
    }
    return Attributes(**{**values, **changes})


def contents():
    rng = np.random.default_rng(0)
    arrays = {}
    for split, clips in CLIPS.items():
        arrays[f"{split}/video"] = rng.integers(0, 256, (clips, 3, 6, 4, 3)).astype(np.uint8)
        for subject in ("sub-01", "sub-02"):
            arrays[f"{split}/fmri/{subject}"] = rng.normal(size=(clips, 2, 8, 8)).astype(np.float16)
            arrays[f"{split}/present/{subject}"] = rng.random(clips) < 0.8
    for subject in ("sub-01", "sub-02"):
        arrays[f"train/average/{subject}"] = rng.normal(size=(2, 8, 8)).astype(np.float32)
        for kind in ("mean", "tsnr", "reliability"):
            arrays[f"quality/{kind}/{subject}"] = rng.normal(size=(8, 8)).astype(np.float32)
    for subject, volumes in (("sub-01", 11), ("sub-02", 6)):
        arrays[f"quality/course/{subject}"] = rng.normal(size=volumes).astype(np.float32)
    return arrays


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("stores") / "a.zarr"
    with Store.create(path, attributes(), mask=MASK, frames=3, resolution=(6, 4)) as writer:
        for name, values in contents().items():
            writer.write(name, values)
        assert not path.exists()
    return Store.open(path)


def test_reads_what_was_written(store):
    arrays = contents()
    assert store.attributes == attributes()
    np.testing.assert_array_equal(store.mask, MASK)
    clips = [66, 0, 64, 0]
    np.testing.assert_array_equal(store.video("train", clips), arrays["train/video"][clips])
    both = store.fmri("train", clips, subjects=["02", "01"])
    assert both.dtype == np.float16
    np.testing.assert_array_equal(both[:, 0], arrays["train/fmri/sub-02"][clips])
    np.testing.assert_array_equal(both[:, 1], arrays["train/fmri/sub-01"][clips])
    np.testing.assert_array_equal(
        store.present("test", subjects=["02"])[:, 0], arrays["test/present/sub-02"]
    )
    assert store.num_bytes("test", subjects=["01"]) == 3 * (3 * 6 * 4 * 3 + 2 * 8 * 8 * 2)


def test_quality_is_read_by_kind_and_subject(store):
    arrays = contents()
    for kind in ("mean", "tsnr", "reliability", "course"):
        for subject in ("01", "02"):
            np.testing.assert_array_equal(
                store.quality(kind, subject), arrays[f"quality/{kind}/sub-{subject}"]
            )
    with pytest.raises(DataError, match="has no subject 03; it holds 01, 02"):
        store.quality("mean", "03")
    with pytest.raises(DataError, match="array quality/colour/sub-01 cannot be read"):
        store.quality("colour", "01")


def test_average_weighs_every_sample_alike(store):
    arrays = contents()
    counts = [arrays[f"train/present/sub-{s}"].sum() for s in ("01", "02")]
    expected = sum(
        n * arrays[f"train/average/sub-{s}"] for n, s in zip(counts, ("01", "02"), strict=True)
    ) / sum(counts)
    np.testing.assert_allclose(store.average(subjects=["01", "02"]), expected, atol=1e-6)
    np.testing.assert_array_equal(store.average(subjects=["02"]), arrays["train/average/sub-02"])


def test_zarr_and_xarray_read_it(store):
    arrays = contents()
    group = zarr.open_group(store.path, mode="r")
    assert group.attrs["repetition_time"] == 1.5
    for name, values in arrays.items():
        np.testing.assert_array_equal(group[name][...], values)
    assert group["train/video"].chunks == (1, 3, 6, 4, 3)
    assert group["train/video"].shards[0] == SHARD
    train = xarray.open_zarr(store.path, group="train", consolidated=False)
    assert train["video"].dims == ("clip", "frame", "height", "width", "channel")
    fmri = xarray.open_zarr(store.path, group="train/fmri", consolidated=False)
    assert fmri["sub-01"].dims == ("clip", "window", "row", "column")
    mean = xarray.open_zarr(store.path, group="quality/mean", consolidated=False)
    assert mean["sub-02"].dims == ("row", "column")
    assert not list(store.path.parent.glob(".*"))


def test_an_error_leaves_nothing_behind(tmp_path):
    def fail():
        with Store.create(
            tmp_path / "a.zarr", attributes(), mask=MASK, frames=3, resolution=(6, 4)
        ) as writer:
            writer.write("mask", MASK)
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_shards_written_one_by_one_are_the_same(tmp_path, store):
    path = tmp_path / "b.zarr"
    with Store.create(path, attributes(), mask=MASK, frames=3, resolution=(6, 4)) as writer:
        video = contents()["train/video"]
        for start in range(0, len(video), SHARD):
            writer.write("train/video", video[start : start + SHARD], start=start)
    np.testing.assert_array_equal(Store.open(path).video("train", range(69)), video)


@pytest.mark.parametrize(
    ("sample", "length"),
    [(1, 64), (2**21, 64), (2**21 + 1, 32), (12 * 320 * 576 * 3, 16), (2**28, 1)],
)
def test_large_samples_share_a_file_with_fewer(sample, length):
    assert shard_length(sample) == length
    assert SHARD % length == 0


def test_what_is_no_store_is_rejected(tmp_path, store):
    with pytest.raises(DataError, match="no prepared store"):
        Store.open(tmp_path)
    (tmp_path / "zarr.json").write_text("{}")
    with pytest.raises(DataError, match="not a prepared store"):
        Store.open(tmp_path)
    (tmp_path / "zarr.json").write_text(json.dumps({"attributes": {"format": 99}}))
    with pytest.raises(DataError, match="store format 99, this version reads 2; remove it and"):
        Store.open(tmp_path)
    with pytest.raises(DataError, match="has no subject 03; it holds 01, 02"):
        store.fmri("test", [0], subjects=["03"])
