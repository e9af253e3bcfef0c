"""The streaming writer: what it writes is safetensors, cast, split and small in memory."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from glfa_jax.convert import pretrained
from glfa_jax.convert.directory import (
    PYTORCH_METADATA,
    DirectoryError,
    new_folder,
    read_file,
    read_tensors,
    write_tensors,
)
from glfa_jax.convert.stored import release
from glfa_jax.convert.stream import bytes_of, shards, write_safetensors
from glfa_jax.errors import InputError
from tests.convert.test_directory import assert_same, example


def test_the_reference_reader_reads_what_is_written(tmp_path):
    path = tmp_path / "a.safetensors"
    write_safetensors(path, example(), metadata=PYTORCH_METADATA)
    assert_same(load_file(path), {n: np.asarray(t, order="C") for n, t in example().items()})


def test_tensors_may_lie_in_memory_in_any_way(tmp_path):
    whole = np.arange(24, dtype=np.float32)
    tensors = {
        "every second": whole[::2],
        "backwards": whole[::-1],
        "repeated": np.broadcast_to(whole[3], (5,)),
        "column": whole.reshape(4, 6)[:, 1:2],
    }
    path = tmp_path / "a.safetensors"
    write_safetensors(path, tensors, metadata=PYTORCH_METADATA)
    assert_same(load_file(path), {n: np.array(t, order="C") for n, t in tensors.items()})


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_floating_point_alone_is_cast(dtype, tmp_path, monkeypatch):
    monkeypatch.setattr("glfa_jax.convert.stream._PIECE", 4)  # in several pieces
    write_tensors(tmp_path, example(), config={}, filename="model.safetensors", dtype=dtype)
    cast = {name: t if t.dtype.kind in "ib" else t.astype(dtype) for name, t in example().items()}
    assert_same(read_tensors(tmp_path), cast)


def test_tensors_are_changed_one_at_a_time(tmp_path):
    events = []

    def change(name: str, tensor: np.ndarray) -> np.ndarray:
        events.append(f"change {name}")
        return tensor + np.float32(1)

    tensors = {name: np.full(3, i, ml_dtypes.bfloat16) for i, name in enumerate("ab")}
    path = tmp_path / "a.safetensors"
    done = lambda tensor: events.append(f"done {tensor[0]}")  # noqa: E731
    write_safetensors(path, tensors, metadata={}, change=change, done=done)
    assert events == ["change a", "done 0.0", "change b", "done 1.0"]
    found = read_file(path)
    assert {name: (str(t.dtype), t[0]) for name, t in found.items()} == {
        "a": ("bfloat16", 1),
        "b": ("bfloat16", 2),
    }


def test_a_dtype_that_the_format_lacks_is_rejected(tmp_path):
    with pytest.raises(InputError, match="complex64"):
        write_safetensors(tmp_path / "a", {"x": np.zeros(2, np.complex64)}, metadata={})
    assert not list(tmp_path.iterdir())


def test_shards_are_named_and_indexed_as_others_do(tmp_path):
    tensors = {f"t{i}": np.full(10, i, np.float32) for i in range(5)}
    write_tensors(tmp_path, tensors, config={}, filename="model.safetensors", shard_size=80)
    files = sorted(path.name for path in tmp_path.iterdir())
    names = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert files == ["SHA256SUMS", "config.json", *names, "model.safetensors.index.json"]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": 200}
    assert index["weight_map"] == {f"t{i}": names[i // 2] for i in range(5)}
    assert_same(read_tensors(tmp_path), tensors)


def test_a_tensor_above_the_limit_has_a_file_of_its_own():
    tensors = {"a": np.zeros(2, "f4"), "b": np.zeros(50, "f4"), "c": np.zeros(2, "f4")}
    parts = shards(tensors, filename="model.safetensors", size=16)
    assert [list(part) for part in parts.values()] == [["a"], ["b"], ["c"]]
    # Counted as written: in half precision two fit together.
    parts = shards(tensors, filename="model.safetensors", size=112, dtype=np.float16)
    assert [list(part) for part in parts.values()] == [["a", "b", "c"]]


@pytest.mark.parametrize(
    ("text", "count"), [("5GB", 5 * 10**9), ("1.5MiB", 3 * 2**19), ("20", 20), ("7 kb", 7000)]
)
def test_sizes_are_understood(text, count):
    assert bytes_of(text) == count


@pytest.mark.parametrize("text", ["", "5 parsecs", "-1MB", "0", "GB", "9" * 400])
def test_other_sizes_are_rejected(text):
    with pytest.raises(InputError, match="must be a size such as 5GB"):
        bytes_of(text)


def test_what_is_released_can_be_read_again_and_others_stay(tmp_path):
    tensors = {name: np.random.default_rng(0).random((512, 33)) for name in "abc"}
    write_tensors(tmp_path, tensors, config={}, filename="model.safetensors")
    read = read_tensors(tmp_path)
    read["a"][:] = 1
    release(read["b"])
    release(np.zeros(3))
    np.testing.assert_array_equal(read["a"], np.ones((512, 33)))
    np.testing.assert_array_equal(read["b"], tensors["b"])
    np.testing.assert_array_equal(read["c"], tensors["c"])


def test_a_folder_appears_when_it_is_whole(tmp_path):
    target = tmp_path / "new" / "model"

    def fail() -> None:
        with new_folder(target) as folder:
            (folder / "a").write_text("a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not list(tmp_path.iterdir())
    with new_folder(target) as folder:
        (folder / "a").write_text("a")
        assert not target.exists()
    assert [path.name for path in target.parent.iterdir()] == ["model"]
    with pytest.raises(DirectoryError, match="exists already"), new_folder(target):
        pass
    assert (target / "a").read_text() == "a"


@pytest.mark.parametrize("exists", [True, False], ids=["empty", "absent"])
def test_a_link_is_followed_to_the_folder(exists, tmp_path):
    if exists:
        (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    with new_folder(tmp_path / "link") as folder:
        (folder / "a").write_text("a")
    assert (tmp_path / "link").is_symlink()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["a"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "link"]


def test_a_mount_point_is_no_target(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path)
    with pytest.raises(DirectoryError, match="is a mount point"), new_folder(tmp_path):
        pass


def test_the_current_folder_is_no_target(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for target in (".", tmp_path):
        with pytest.raises(DirectoryError, match="is the current folder"), new_folder(target):
            pass
    assert tmp_path.is_dir()


# 180 MB in float32. Prints the growth of the largest resident memory, mapped pages included.
BIG = {
    "model_type": "vit",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 8,
    "num_hidden_layers": 3,
    "image_size": 32,
    "patch_size": 16,
    "id2label": {"0": "a", "1": "b"},
}
MEASURE = """
import resource, sys
from pathlib import Path
from glfa_jax.convert import pretrained, transfer

def peak():  # where the kernel tells it, without what the process was before it was this program
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

small, big, target, *dtype = sys.argv[1:]
def run(source, target):
    if dtype:
        transfer.import_model("vit", source, target, dtype=dtype[0])
    else:
        pretrained.load("vit", source)
run(small, target + "-small")  # whatever starts up, starts up here
before = peak()
run(big, target)
print(peak() - before)
"""


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """The folders of a tiny and of a big model, the big one in half precision, and its size."""
    folder = tmp_path_factory.mktemp("big")
    sizes = {"hidden_size": 8, "intermediate_size": 8, "image_size": 16}
    for name, config in (("small", BIG | sizes), ("large", BIG)):
        shapes = pretrained.parameter_shapes("vit", pretrained.build("vit", config))
        params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float16), shapes)
        pretrained.save("vit", folder / name, params, config=config)
    size = sum(4 * leaf.size for leaf in jax.tree.leaves(params))
    return folder / "small", folder / "large", size


@pytest.mark.parametrize("dtype", ["stored", "float32", None])
def test_import_and_load_need_less_than_a_third_beyond_the_model(dtype, big, tmp_path):
    """Bound: 1.3 times the larger of source and target. None: `pretrained.load`, to float32."""
    small, large, size = big
    if dtype == "stored":
        size //= 2
    arguments = [small, large, tmp_path / "target", *([dtype] if dtype else [])]
    process = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
    )
    growth = int(process.stdout)
    assert growth < 1.3 * size
    if dtype is None:
        assert growth > 0.9 * size  # the measurement sees what is held
