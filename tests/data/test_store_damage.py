"""A store that is damaged anywhere is one sentence, by whatever it is read; never zeros."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from glfa_jax.data import DataError
from glfa_jax.data.latents import LatentsWriter
from glfa_jax.data.store import Store
from glfa_jax.errors import InputError
from tests.data.test_store import MASK, attributes, contents

FRAMES = {"frames": 3, "resolution": (6, 4)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Not to be changed. With latents, and a name that is hard for whoever takes it for a URL."""
    path = tmp_path_factory.mktemp("stores") / "a store #1?%20é.zarr"
    with Store.create(path, attributes(), mask=MASK, **FRAMES) as writer:
        for name, values in contents().items():
            writer.write(name, values)
    latents = LatentsWriter(path, "train", clips=69, shard=64, sample=(3, 3, 2, 4), vae="one")
    for shard in latents.pending():
        latents.write(shard, np.full((len(shard), 3, 3, 2, 4), shard.start, np.float32))
    latents.finish()
    return path


@pytest.fixture
def own(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / whole.name))


def read_all(path: Path) -> list[bytes]:
    store = Store.open(path)
    subjects = store.attributes.subjects
    found = [store.mask, store.average(subjects=subjects), store.latents("train", [0, 68])]
    numbers = {"clips": np.array([0, 66]), "positions": np.array([1, 0])}
    for subject in subjects:
        found.append(store.volumes("train", subject=subject, **numbers))
        found += [
            store.quality(kind, subject) for kind in ("mean", "tsnr", "reliability", "course")
        ]
    for split in ("train", "test"):
        every = range(store.num_clips(split))
        found += [store.video(split, every), store.fmri(split, every, subjects=subjects)]
        found.append(store.present(split, subjects=subjects))
    return [np.ascontiguousarray(values).tobytes() for values in found if values is not None]


def change(path: Path, act: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    act(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def unseal(path: Path) -> None:
    """As stores were before there were seals."""
    change(path / "zarr.json", lambda c: c["attributes"]["provenance"].pop("seal"))


FILES = [
    *("mask/c/0/0", "train/video/c/1/0/0/0/0", "train/fmri/sub-02/c/0/0/0/0"),
    *("test/present/sub-01/c/0", "train/average/sub-01/c/0/0/0", "quality/course/sub-02/c/0"),
    "train/latents/c/1/0/0/0/0",
]


def in_place_of(path: Path, kind: str) -> None:
    content = path.read_bytes()
    path.unlink()
    if kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind != "nothing":
        half = len(content) // 2
        path.write_bytes(
            {
                "an empty file": b"",
                "its first half": content[:half],
                "a file with other bytes": content[:half] + bytes(9) + content[half + 9 :],
                "random bytes": np.random.default_rng(0).bytes(400),
            }[kind]
        )


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    "kind",
    [
        *("nothing", "a folder", "a pipe", "an empty file", "its first half"),
        *("a file with other bytes", "random bytes"),
    ],
)
def test_a_damaged_file_is_named_by_store_and_array(own, file, kind):
    in_place_of(own / file, kind)
    with pytest.raises(DataError) as told:
        read_all(own)
    name = file.partition("/c/")[0]
    said = f"{own}: array {name} cannot be read, the store is damaged ("
    assert str(told.value).startswith(said)
    assert "remove " in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("array", ["mask", "train/video", "test/fmri/sub-01", "train/latents"])
@pytest.mark.parametrize(
    "act",
    [
        lambda c: c.update(shape=[2**40] * len(c["shape"])),
        lambda c: c.update(shape=[*c["shape"][:-1], c["shape"][-1] + 1]),
        lambda c: c.update(shape="x"),
        lambda c: c["chunk_grid"]["configuration"].update(chunk_shape=[2**40] * len(c["shape"])),
        lambda c: c.update(data_type="float64"),
        lambda c: c.update(codecs=[]),
        lambda c: c.update(fill_value=1),
        lambda c: c["chunk_key_encoding"].update(name="v2"),
        lambda c: c.pop("shape"),
        dict.clear,
    ],
)
def test_an_array_that_is_not_what_the_attributes_imply_is_never_read(own, array, act):
    change(own / array / "zarr.json", act)
    with pytest.raises(DataError, match=r"the store is damaged|not latents of glfa_jax; remove it"):
        read_all(own)


@pytest.mark.parametrize("folder", ["mask", "train/video", "quality/tsnr/sub-01", "test"])
def test_a_folder_that_is_gone_is_missed_when_the_store_is_opened(own, folder):
    shutil.rmtree(own / folder)
    with pytest.raises(DataError, match=rf"array {folder}\S* cannot be read"):
        Store.open(own)


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda a: a.pop("clips"), "clips: missing"),
        (lambda a: a.update(speed=1), "speed: unknown key, known here are subjects"),
        (lambda a: a.update(subjects="01"), "subjects: must be a list"),
        (lambda a: a.update(subjects=[]), "subjects: makes no sense"),
        (lambda a: a.update(subjects=["01", "../02"]), "subjects: makes no sense"),
        (lambda a: a.update(subjects=["01", "01"]), "subjects: makes no sense"),
        (lambda a: a.update(repetition_time=float("nan")), "repetition_time: must be finite"),
        (lambda a: a.update(repetition_time=-1), "repetition_time: makes no sense"),
        (lambda a: a.update(window=2.5), "window: must be a whole number"),
        (lambda a: a["captions"]["train"].pop(), "captions: makes no sense"),
        (lambda a: a["clips"].pop("test"), "clips: makes no sense"),
        (lambda a: a["repeats"].pop("02"), "repeats: makes no sense"),
        (lambda a: a["runs"][0].pop("volumes"), "runs[0].volumes: missing"),
        (lambda a: a.update(provenance=[]), "not a prepared store"),
        (lambda a: a["provenance"].update(files={"a": 1}), "provenance.files.a: must be an object"),
        (lambda a: a["provenance"].update(seal={}), "seal.sizes: missing"),
    ],
)
def test_attributes_that_make_no_store_are_one_sentence(own, act, sentence):
    unseal(own)
    change(own / "zarr.json", lambda c: act(c["attributes"]))
    with pytest.raises(DataError) as told:
        Store.open(own)
    assert str(told.value).startswith(f"{own}: not a prepared store of glfa_jax, or damaged (")
    assert sentence in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(("key", "value"), [("lag_seconds", 5.0), ("captions", None)])
def test_attributes_changed_afterwards_are_noticed(own, key, value):
    def act(content):
        about = content["attributes"]
        about[key] = value or {s: texts[::-1] for s, texts in about[key].items()}

    change(own / "zarr.json", act)
    with pytest.raises(DataError, match="its attributes are not those that were written"):
        Store.open(own)


def test_a_sound_file_of_another_store_is_noticed(own, tmp_path):
    with Store.create(tmp_path / "b.zarr", attributes(), mask=MASK, **FRAMES) as writer:
        for name, values in contents().items():
            writer.write(name, values // 9 if values.dtype == np.uint8 else values)
    file = "train/video/c/1/0/0/0/0"
    shutil.copy(tmp_path / "b.zarr" / file, own / file)
    with pytest.raises(DataError, match=rf"train/video .*{file}: is not the file that was written"):
        Store.open(own)


def test_a_store_of_before_is_read_and_its_missing_files_are_noticed(own, whole):
    unseal(own)
    assert read_all(own) == read_all(whole)
    # Zero throughout, it was not written.
    (own / "quality/reliability/sub-01/c/0/0").unlink()
    assert not Store.open(own).quality("reliability", "01").any()
    present = own / "train/present/sub-01/c/0"
    content = present.read_bytes()
    present.unlink()
    with pytest.raises(DataError, match=r"train/present/sub-01 .*/c/0: no such file\)"):
        Store.open(own)
    present.write_bytes(content)
    (own / "train/fmri/sub-01/c/1/0/0/0").unlink()
    with pytest.raises(DataError, match=r"train/fmri/sub-01 .*/c/1/0/0/0: no such file\)"):
        Store.open(own)


def test_arrays_that_are_zero_are_no_damage(tmp_path):
    with Store.create(tmp_path / "a.zarr", attributes(), mask=MASK, **FRAMES):
        pass  # nobody writes anything
    store = Store.open(tmp_path / "a.zarr")
    assert not store.video("train", [0, 68]).any()
    with pytest.raises(DataError, match=r"a\.zarr: has no train sample of 01, 02"):
        store.average(subjects=["01", "02"])


def test_an_average_that_is_no_number_is_rejected(tmp_path):
    with Store.create(tmp_path / "a.zarr", attributes(), mask=MASK, **FRAMES) as writer:
        for name, values in contents().items():
            writer.write(name, values * np.nan if name == "train/average/sub-01" else values)
    with pytest.raises(DataError, match="the fMRI of 01 is not finite throughout"):
        Store.open(tmp_path / "a.zarr").average(subjects=["01"])


def test_a_clip_that_there_is_not_is_no_damage(whole):
    with pytest.raises(IndexError, match="train/video: has 69 samples"):
        Store.open(whole).video("train", [69])


@pytest.mark.parametrize("where", ["glfa_jax.data.zarr.ts.open", "pathlib.Path.write_text"])
def test_a_disk_that_is_full_while_the_store_is_laid_out_names_the_store(
    tmp_path, monkeypatch, where
):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "x")

    with monkeypatch.context() as patch:
        patch.setattr(where, full)
        message = r"/a\.zarr: cannot be written, the disk is full \([\d,]+ bytes free\)"
        with (
            pytest.raises(InputError, match=message),
            Store.create(tmp_path / "a.zarr", attributes(), mask=MASK, **FRAMES),
        ):
            pass
    assert not list(tmp_path.iterdir())


def test_a_rejection_of_tensorstore_is_reported_as_the_system_s(tmp_path, monkeypatch):
    with Store.create(tmp_path / "a.zarr", attributes(), mask=MASK, **FRAMES) as writer:

        class Full:
            dtype = writer._arrays["mask"].dtype

            def write(self, *_, **__):
                raise ValueError("Error writing local file [No space left on device]")

        monkeypatch.setitem(writer._arrays, "mask", Full())
        with pytest.raises(DataError, match=r"/a\.zarr: cannot be written, the disk is full"):
            writer.write("mask", MASK)


def test_links_and_relative_paths_say_where_they_lead(whole, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(whole)
    assert Store.open(tmp_path / "link").attributes == attributes()
    (tmp_path / "broken").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=r"broken: no prepared store \(links to \S+gone, which"):
        Store.open(tmp_path / "broken")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="gone") as told:
        Store.open("gone")
    assert str(told.value).startswith(f"gone (counted from {tmp_path}): no prepared store; run ")
