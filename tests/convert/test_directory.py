"""Model folders: single files, shards, variants, dtypes, and what is said of broken ones."""

import json
import re
import shutil

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from glfa_jax.convert.directory import (
    DirectoryError,
    read_config,
    read_tensors,
    write_tensors,
)

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
    with pytest.raises(DirectoryError, match=f"{name}: is a pointer of git-lfs"):
        read_tensors(tmp_path)


def test_shards_without_an_index_are_pointed_out(tmp_path):
    write_shards(tmp_path, example())
    (tmp_path / INDEX).unlink()
    with pytest.raises(DirectoryError, match="there are shards, but no index of them"):
        read_tensors(tmp_path)


def test_two_sets_of_weights_are_refused(tmp_path):
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
