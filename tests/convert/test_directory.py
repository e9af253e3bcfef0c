"""Model folders: single files, shards, variants, dtypes, and what is said of broken ones."""

import errno
import hashlib
import json
import os
import re
import shutil

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from glfa_jax import files
from glfa_jax.convert.directory import (
    DirectoryError,
    read_config,
    read_tensors,
    write_tensors,
)
from glfa_jax.errors import InputError

CONFIG = {"model_type": "clip", "projection_dim": 4}
INDEX = "diffusion_pytorch_model.safetensors.index.json"
SHARDS = [f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]


def example() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "single": random.standard_normal((3, 5), np.float32),
        "half": random.standard_normal((2, 3)).astype(np.float16),
        "brain": random.standard_normal((7,)).astype(ml_dtypes.bfloat16),
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 4), np.float32),
        "index": np.arange(5),
        "flag": np.array([True, False, True]),
        "transposed": random.standard_normal((3, 4), np.float32).T,
    }


def assert_same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert (ours[name].dtype, ours[name].shape) == (value.dtype, value.shape), name
        assert ours[name].tobytes() == value.tobytes(), name


def write_shards(folder, tensors: dict[str, np.ndarray]) -> None:
    names = sorted(tensors)
    parts = [names[::2], names[1::2]]
    for file, part in zip(SHARDS, parts, strict=True):
        save_file({name: np.asarray(tensors[name], order="C") for name in part}, folder / file)
    places = {name: file for file, part in zip(SHARDS, parts, strict=True) for name in part}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))


@pytest.mark.parametrize("stem", ["model", "diffusion_pytorch_model"])
def test_a_written_folder_reads_back_bit_for_bit(stem, tmp_path):
    folder = tmp_path / "new" / "unet"
    write_tensors(folder, example(), config=CONFIG, filename=f"{stem}.safetensors")
    assert_same(read_tensors(folder), example())
    assert read_config(folder) == CONFIG
    names = {f"{stem}.safetensors", "config.json", "SHA256SUMS"}
    assert {path.name for path in folder.iterdir()} == names


def test_shards_are_joined(tmp_path):
    write_shards(tmp_path, example())
    assert_same(read_tensors(tmp_path), example())


def test_a_variant_is_read_when_asked_for(tmp_path):
    full = {"a": np.ones(3, np.float32)}
    half = {"a": np.ones(3, np.float16)}
    write_tensors(tmp_path, full, config=CONFIG, filename="model.safetensors")
    write_tensors(tmp_path, half, config=CONFIG, filename="model.fp16.safetensors")
    assert_same(read_tensors(tmp_path), full)
    assert_same(read_tensors(tmp_path, variant="fp16"), half)


def test_changing_a_tensor_leaves_the_file_alone(tmp_path):
    write_tensors(tmp_path, example(), config=CONFIG, filename="model.safetensors")
    read_tensors(tmp_path)["single"][:] = 0
    assert_same(read_tensors(tmp_path), example())


def test_a_folder_is_overwritten_while_it_is_read(tmp_path):
    write_tensors(tmp_path, example(), config=CONFIG, filename="model.safetensors")
    before = read_tensors(tmp_path)
    write_tensors(tmp_path, {"a": np.ones(2)}, config=CONFIG, filename="model.safetensors")
    assert_same(before, example())
    assert_same(read_tensors(tmp_path), {"a": np.ones(2)})


def test_a_failed_write_leaves_what_was_there(tmp_path):
    write_tensors(tmp_path, example(), config=CONFIG, filename="model.safetensors")
    with pytest.raises(TypeError):
        write_tensors(tmp_path, {}, config={"a": object()}, filename="model.safetensors")
    assert_same(read_tensors(tmp_path), example())
    names = {"model.safetensors", "config.json", "SHA256SUMS"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_a_missing_config_is_named(tmp_path):
    with pytest.raises(DirectoryError, match=r"config\.json: no such file"):
        read_config(tmp_path)


@pytest.mark.parametrize("text", ["{", "", "[" * 100_000, "\0"])
def test_a_broken_config_is_named(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(DirectoryError, match=r"config\.json: not valid JSON"):
        read_config(tmp_path)


def test_missing_weights_say_what_is_looked_for(tmp_path):
    with pytest.raises(DirectoryError, match=r"no weights.*model\.fp16\.safetensors"):
        read_tensors(tmp_path, variant="fp16")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_pointer_of_git_is_named_as_such(name, tmp_path):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (tmp_path / name).write_text(pointer)
    with pytest.raises(DirectoryError, match=f"{name}: is a pointer of git-annex or git-lfs"):
        read_tensors(tmp_path)


def test_shards_without_an_index_are_pointed_out(tmp_path):
    write_shards(tmp_path, example())
    (tmp_path / INDEX).unlink()
    with pytest.raises(DirectoryError, match="there are shards, but no index of them"):
        read_tensors(tmp_path)


def test_two_sets_of_weights_are_rejected(tmp_path):
    write_shards(tmp_path, example())
    write_tensors(tmp_path, example(), config=CONFIG, filename="model.safetensors")
    with pytest.raises(DirectoryError, match="must hold exactly one"):
        read_tensors(tmp_path)


def test_a_missing_shard_is_named(tmp_path):
    write_shards(tmp_path, example())
    (tmp_path / SHARDS[1]).unlink()
    with pytest.raises(DirectoryError, match=f"missing files: {SHARDS[1]}"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("name", ["../a.safetensors", "/a.safetensors", "", ".", 3, None])
def test_an_index_names_files_of_its_folder_only(name, tmp_path):
    (tmp_path / "model").mkdir()
    write_shards(tmp_path / "model", example())
    shutil.copy(tmp_path / "model" / SHARDS[1], tmp_path / "a.safetensors")
    index = json.loads((tmp_path / "model" / INDEX).read_text())
    places = index["weight_map"].items()
    index["weight_map"] = {key: name if file == SHARDS[1] else file for key, file in places}
    (tmp_path / "model" / INDEX).write_text(json.dumps(index))
    said = re.escape(f"its weight_map names {name!r}, must name files of the same folder")
    with pytest.raises(DirectoryError, match=said):
        read_tensors(tmp_path / "model")


def test_a_shard_without_its_tensor_is_named(tmp_path):
    write_shards(tmp_path, example())
    index = json.loads((tmp_path / INDEX).read_text())
    index["weight_map"]["lost"] = SHARDS[0]
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(DirectoryError, match=f"{SHARDS[0]}: differs .* lost"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_truncated_file_is_named(kept, tmp_path):
    write_tensors(tmp_path, example(), config=CONFIG, filename="model.safetensors")
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    (tmp_path / "SHA256SUMS").unlink()
    with pytest.raises(DirectoryError, match=r"model\.safetensors: truncated"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("index", ["safetensors.index.fp16.json", "fp16.safetensors.index.json"])
@pytest.mark.parametrize("shard", ["{}.fp16-0000{}-of-00002", "{}-0000{}-of-00002.fp16"])
@pytest.mark.parametrize("stem", ["model", "diffusion_pytorch_model"])
def test_the_shards_of_a_variant_are_read_however_they_are_spelt(stem, shard, index, tmp_path):
    write_shards(tmp_path, example())
    places = json.loads((tmp_path / INDEX).read_text())["weight_map"]
    spelt = {old: f"{shard.format(stem, i)}.safetensors" for i, old in enumerate(SHARDS, 1)}
    for old, new in spelt.items():
        (tmp_path / old).rename(tmp_path / new)
    (tmp_path / INDEX).unlink()
    content = {"weight_map": {name: spelt[place] for name, place in places.items()}}
    (tmp_path / f"{stem}.{index}").write_text(json.dumps(content))
    assert_same(read_tensors(tmp_path, variant="fp16"), example())
    with pytest.raises(DirectoryError, match="there is the variant fp16, which must be asked for"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_flipped_bit_in_what_was_written_is_rejected(name, tmp_path):
    write_tensors(tmp_path, example(), config=CONFIG, filename="model.safetensors")
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    content[-2] ^= 4
    path.write_bytes(content)
    with pytest.raises(DirectoryError, match=f"{name}: is not what was written"):
        read_tensors(tmp_path)
    (tmp_path / "SHA256SUMS").unlink()  # as in all folders of before
    read_tensors(tmp_path)


def test_checksums_are_as_other_tools_have_them(tmp_path):
    write_tensors(tmp_path, example(), config=CONFIG, filename="model.safetensors", shard_size=50)
    lines = dict(
        reversed(line.split("  ")) for line in (tmp_path / "SHA256SUMS").read_text().splitlines()
    )
    assert lines == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in tmp_path.iterdir()
        if path.name != "SHA256SUMS"
    }
    assert len(lines) > 3


def test_what_a_killed_writer_left_is_removed(tmp_path):
    dead = files.aside(tmp_path / "model.safetensors")
    dead = dead.with_name(dead.name.replace(f"-{os.getpid()}-", f"-{2**22 + 1}-"))
    dead.mkdir()
    (dead / "model.safetensors").write_text("a part")
    write_tensors(tmp_path, example(), config=CONFIG, filename="model.safetensors")
    assert not dead.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "SHA256SUMS"])
def test_a_full_disk_is_reported_with_the_file_and_nothing_is_left(name, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = {
        "model.safetensors": "glfa_jax.convert.stream._write",
        "config.json": "pathlib.Path.write_text",
        "SHA256SUMS": "glfa_jax.files.checksums_of",
    }
    monkeypatch.setattr(writer[name], full)
    said = rf"{name}: cannot be written, the disk is full \([\d,]+ bytes free\); make room"
    with pytest.raises(InputError, match=said):
        write_tensors(tmp_path, example(), config=CONFIG, filename="model.safetensors")
    assert not list(tmp_path.iterdir())


def header(**entries: object) -> bytes:
    """A safetensors file of 64 bytes of numbers and this header."""
    text = entries.pop("text", None) or json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + bytes(64)


def entry(shape: list, begin: int = 0, end: int = 64, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


TWICE = b'{"a":{"dtype":"F32","shape":[16],"data_offsets":[0,64]},'
BROKEN = {
    "a shape that no array has": header(a=entry([16]), b=entry([0, 2**63], 64, 64)),
    "another such shape": header(a=entry([16]), b=entry([2**62, 0, 2**62], 64, 64)),
    "too many axes": header(a=entry([1] * 99 + [16])),
    "a negative length": header(a=entry([-16])),
    "a length that overflows": header(a=entry([2**32, 2**32, 16])),
    "a length that is no number": header(a=entry(["16"])),
    "an overlap": header(a=entry([16]), b=entry([8], 32, 64)),
    "a gap": header(a=entry([8], 32, 64)),
    "an end beyond the file": header(a=entry([32], 0, 128)),
    "offsets of huge numbers": header(a=entry([16], 2**64, 2**64 + 64)),
    "an unknown dtype": header(a=entry([16], dtype="F33")),
    "a name given twice": header(text=TWICE + TWICE[1:-1] + b"}"),
    "a name given twice with other lengths": header(
        text=TWICE + TWICE[1:-1].replace(b"[16]", b"[4,4]") + b"}"
    ),
    "no UTF-8": header(text=b'{"\xff":{}}'),
    "no object": header(text=b"[]"),
    "deep nesting": header(text=b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
    "a header of absurd length": (2**63).to_bytes(8, "little") + bytes(64),
    "a header as long as the file says": (10**8).to_bytes(8, "little") + bytes(64),
    "an empty file": b"",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_header_is_one_sentence(content, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(DirectoryError, match=r"model\.safetensors: \w.*") as error:
        read_tensors(tmp_path)
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 500


def test_empty_tensors_are_read_wherever_they_lie(tmp_path):
    content = header(a=entry([0, 3], 0, 0), b=entry([16]), c=entry([5, 0], 64, 64))
    (tmp_path / "model.safetensors").write_bytes(content)
    found = read_tensors(tmp_path)
    assert {name: x.shape for name, x in found.items()} == {"a": (0, 3), "b": (16,), "c": (5, 0)}


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("kind", ["folder", "pipe", "loop"])
def test_what_is_no_file_is_neither_read_nor_waited_for(kind, name, tmp_path):
    path = tmp_path / name
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(path)
    with pytest.raises(DirectoryError, match=r"no plain file|is a link to|holds no weights"):
        read_config(tmp_path) if name == "config.json" else read_tensors(tmp_path)


@pytest.mark.parametrize("places", [[], 3, {"a": "\0"}, {"a": "x" * 999}, {"a": "\ud800"}, {}])
def test_an_index_that_names_no_files_is_rejected(places, tmp_path):
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": places}))
    with pytest.raises(DirectoryError, match=r"weight_map|names missing files"):
        read_tensors(tmp_path)
