"""Lists of captions in the forms in which other groups distribute them."""

import json
import os
import pickle
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from glfa_jax.data import DataError
from glfa_jax.data.layouts import Problems
from glfa_jax.data.layouts.benchmark_captions import is_list, read_lists

FILMS = {"train": ("seg1", "seg2", "seg3"), "test": ("test1", "test2")}
CLIPS = {split: [f"{f}/{i:03d}" for f in films for i in range(4)] for split, films in FILMS.items()}
WORDS = {split: [f"a dög of {clip}" for clip in clips] for split, clips in CLIPS.items()}
WANTED = {c: w for split in CLIPS for c, w in zip(CLIPS[split], WORDS[split], strict=True)}


def read(path, problems=None):
    return read_lists(path, CLIPS, problems or Problems(skip=False))


def save_pt(path: Path, content, *, protocol=2) -> Path:
    """As torch.save writes what holds no tensors."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{path.stem}/data.pkl", pickle.dumps(content, protocol))
        archive.writestr(f"{path.stem}/byteorder", "little")
        archive.writestr(f"{path.stem}/version", "3\n")
    return path


def save_h5(path: Path, words) -> Path:
    with h5py.File(path, "w") as file:
        file[f"{path.stem.split('_')[0]}_captions"] = np.array(
            words, dtype=h5py.special_dtype(vlen=str)
        )
    return path


def save_npy(path: Path, words) -> Path:
    np.save(path, words)
    return path


def of_frames(split):
    """(film, clip, frame): a caption that two of three frames have."""
    words = np.array([[w, "something else", w] for w in WORDS[split]])
    return words.reshape(len(FILMS[split]), 4, 3)


@pytest.mark.parametrize(
    ("names", "save"),
    [
        ("GT_{}_caption.pt", lambda path, split: save_pt(path, np.array(WORDS[split]))),
        ("GT_{}_caption.pt", lambda path, split: save_pt(path, np.array(WORDS[split]), protocol=4)),
        ("GT_{}_caption.pt", lambda path, split: save_pt(path, np.array(WORDS[split], ">U40"))),
        ("GT_{}_caption.pt", lambda path, split: save_pt(path, np.array(WORDS[split], object))),
        ("GT_{}_caption.pt", lambda path, split: save_pt(path, [[w] for w in WORDS[split]])),
        ("text_{}_256_3hz.npy", lambda path, split: save_npy(path, of_frames(split))),
        ("{}.npy", lambda path, split: save_npy(path, np.array(WORDS[split], object))),
        ("{}.json", lambda path, split: path.write_text(json.dumps(WORDS[split]))),
        ("{}.txt", lambda path, split: path.write_text("\r\n".join(WORDS[split]) + "\n")),
        ("{}_captions_new.h5", lambda path, split: save_h5(path, WORDS[split])),
    ],
)
def test_every_form_gives_each_clip_its_caption(tmp_path, names, save):
    paths = {split: tmp_path / names.format(split) for split in CLIPS}
    for split, path in paths.items():
        save(path, split)
    for path in paths.values():  # of either split
        assert is_list(path)
        found, files = read(path)
        assert found == WANTED
        assert set(files) == set(paths.values())


def test_words_that_begin_with_a_capital_are_replaced_by_such(tmp_path):
    for split in CLIPS:
        save_h5(tmp_path / f"{split.title()}_captions_new.h5", WORDS[split])
    found, files = read(tmp_path / "Train_captions_new.h5")
    assert found == WANTED
    assert files[1] == tmp_path / "Test_captions_new.h5"


@pytest.mark.parametrize(
    "names", ["{}_latest.json", "contest_{}_2.json", "trained-{}.json", "my{}words.json"]
)
def test_a_split_is_told_by_a_word_of_its_own_before_part_of_another(tmp_path, names):
    paths = {split: tmp_path / names.format(split) for split in CLIPS}
    for split, path in paths.items():
        path.write_text(json.dumps(WORDS[split]))
    for path in paths.values():
        found, files = read(path)
        assert found == WANTED
        assert set(files) == set(paths.values())


def test_a_table_is_no_list():
    assert not is_list(Path("captions.tsv"))
    assert not is_list(Path("captions.txt"))
    assert is_list(Path("captions_train.txt"))


class Code:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            WORDS["train"][:-1],
            "holds 11 captions, must hold 12, one for each clip from seg1/000",
        ),
        (np.array(WORDS["train"]).reshape(2, 6)[:, :5], r"holds \(2, 5\) captions, must hold 12"),
        ([], "holds 0 captions, must hold 12"),
        ("text", "must hold a list of captions, holds 'text'"),
        ([*WORDS["train"][:-1], 3], "clip seg3/003 has no text as its caption, but 3"),
        (np.arange(12), "holds an array of type 'i8', must be of text"),
        ([*WORDS["train"][:-1], "x" * 131_073], "clip seg3/003 has a caption of 131,073 letters"),
    ],
)
def test_other_lists_are_rejected_in_one_sentence(tmp_path, content, message):
    path = save_pt(tmp_path / "train.pt", content)
    save_pt(tmp_path / "test.pt", WORDS["test"])
    with pytest.raises(DataError, match=rf"train\.pt: ({message})") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_code_in_them_is_named_and_not_run(tmp_path):
    path = save_pt(tmp_path / "train.pt", [*WORDS["train"][:-1], Code(tmp_path / "mark")])
    with pytest.raises(DataError, match=r"names 'posix\.system', which could run code"):
        read(path)
    assert not (tmp_path / "mark").exists()


def test_embeddings_are_called_so(tmp_path):
    begin = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage"
    end = b"ctorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ."
    with zipfile.ZipFile(tmp_path / "train.pt", "w") as archive:
        archive.writestr("a/data.pkl", begin + end)
    with pytest.raises(DataError, match="holds tensors, must hold captions as text"):
        read(tmp_path / "train.pt")


def test_an_empty_caption_leaves_its_clip_without(tmp_path):
    words = [*WORDS["train"]]
    words[5] = " n/a "
    for split, given in (("train", words), ("test", WORDS["test"])):
        (tmp_path / f"{split}.json").write_text(json.dumps(given))
    with pytest.raises(DataError, match=r"train\.json: clip seg2/001 has an empty caption"):
        read(tmp_path / "train.json")
    problems = Problems(skip=True)
    found, _ = read(tmp_path / "train.json", problems)
    assert len(problems.noted) == 1
    assert found == {clip: w for clip, w in WANTED.items() if clip != "seg2/001"}


def test_the_other_split_must_be_there_and_names_must_tell(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps(WORDS["train"]))
    with pytest.raises(DataError, match=r"test\.json: no such file"):
        read(tmp_path / "train.json")
    with pytest.raises(DataError, match=r"all\.json: must have train or test in its name"):
        read(tmp_path / "all.json")


def test_damage_is_named(tmp_path):
    path = save_pt(tmp_path / "train.pt", np.array(WORDS["train"]))
    whole = path.read_bytes()
    for length in (0, 40, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"train\.pt: truncated or no file that PyTorch saved"):
            read(path)
    np.save(tmp_path / "train.npy", np.array(WORDS["train"]))
    whole = (tmp_path / "train.npy").read_bytes()
    (tmp_path / "train.npy").write_bytes(whole[:-5])
    with pytest.raises(DataError, match=r"train\.npy: truncated or no numpy file of captions"):
        read(tmp_path / "train.npy")
    with h5py.File(tmp_path / "train.h5", "w") as file:
        file["numbers"] = np.arange(12)
    with pytest.raises(DataError, match=r"must hold one data set of texts, none of numbers is"):
        read(tmp_path / "train.h5")
