"""What PyTorch saves is read the same without it, and it loads what is written without it."""

import argparse
import pickle
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest
import torch

from glfa_jax.convert.pickled import PickledError, read_pickled, state_dict, write_pickled

# As torch.save writes now, before 1.6, and with the newer pickle.
FORMATS = {
    "zip": {},
    "legacy": {"_use_new_zipfile_serialization": False},
    "protocol 4": {"pickle_protocol": 4},
    "legacy, protocol 5": {"_use_new_zipfile_serialization": False, "pickle_protocol": 5},
}
CLASSIC = [
    *(torch.float16, torch.float32, torch.float64, torch.bfloat16, torch.complex64),
    *(torch.complex128, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool),
]
NEWER = [
    *(torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e4m3fnuz),
    *(torch.float8_e5m2, torch.float8_e5m2fnuz, torch.float8_e8m0fnu),
]


def assert_same(ours: np.ndarray, theirs: torch.Tensor) -> None:
    assert isinstance(ours, np.ndarray)
    assert (f"torch.{ours.dtype.name}", ours.shape) == (str(theirs.dtype), tuple(theirs.shape))
    content = theirs.detach().contiguous().reshape(-1).view(torch.uint8)
    assert ours.tobytes() == content.numpy().tobytes()


@pytest.fixture(params=FORMATS)
def saved(request, tmp_path):
    """What is read of an object that torch saved."""

    def read(value: object):
        torch.save(value, tmp_path / "a.pth", **FORMATS[request.param])
        return read_pickled(tmp_path / "a.pth")

    return read


def test_every_dtype_is_the_same(saved):
    content = torch.randint(0, 256, (3, 48), dtype=torch.uint8)
    values = {str(dtype): content.clone().view(dtype) for dtype in (*CLASSIC, *NEWER)}
    values["torch.bool"] = content > 99
    read = saved(values)
    assert list(read) == list(values)
    for name, value in values.items():
        assert_same(read[name], value)


def test_every_layout_is_the_same(saved):
    base = torch.arange(24.0).reshape(2, 3, 4)
    values = [
        base.permute(2, 0, 1),
        base[:, 1:, ::2],
        base[1, 2, 3],
        base[:1].expand(5, 3, 4),
        torch.tensor(3),
        torch.empty(0, 3),
        base.reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
        torch.arange(6).as_strided((2, 2, 2), (2, 1, 1), 1),
        torch.ones(2, requires_grad=True),
    ]
    for ours, theirs in zip(saved(values), values, strict=True):
        assert_same(ours, theirs)


def test_shared_storages_stay_shared(saved):
    base = torch.zeros(3, 4, dtype=torch.bfloat16)
    matrix, row, transposed = saved((base, base[1], base.T))
    matrix[1, 2] = 7
    assert row[2] == transposed[2, 1] == 7


def test_modules_parameters_and_nested_containers_are_the_same(saved):
    module = torch.nn.Sequential(torch.nn.Conv1d(3, 4, 2), torch.nn.BatchNorm1d(4))
    module[0].weight.note = "has a state"
    moments = {"step": torch.tensor(3.0), "exp_avg": torch.randn(4, 3, 2)}
    groups = [{"lr": 1e-4, "betas": (0.9, 0.999), "fused": None, "amsgrad": False, "params": [0]}]
    read = saved(
        {
            "model": module.state_dict(prefix="module."),
            "optimizer": {"state": {0: moments}, "param_groups": groups},
            "parameters": list(module.parameters()),
            "epoch": 7,
            "more": {"size": torch.Size([1, 2]), "set": {1, "a"}, "bytes": b"\xff", "z": 1j},
            "dtype": torch.float16,
        }
    )
    found = state_dict(read, path="a.pth")
    assert list(found) == list(module.state_dict())
    for name, value in module.state_dict().items():
        assert_same(found[name], value)
    for ours, theirs in zip(read["parameters"], module.parameters(), strict=True):
        assert_same(ours, theirs)
    for name, value in moments.items():
        assert_same(read["optimizer"]["state"][0][name], value)
    assert read["optimizer"]["param_groups"] == groups
    assert (read["epoch"], read["dtype"]) == (7, "torch.float16")
    assert read["more"] == {"size": (1, 2), "set": {1, "a"}, "bytes": b"\xff", "z": 1j}


@pytest.mark.filterwarnings("ignore:.*(quantized tensor|ComplexHalf)")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.eye(3).to_sparse(), r"names 'torch\._utils\._rebuild_sparse_tensor'"),
        (
            lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
            "_rebuild_qtensor'",
        ),
        (lambda: torch.zeros(2, dtype=torch.complex32), r"names 'torch\.complex32'"),
        (lambda: torch.ones(2, dtype=torch.complex64).conj(), "conjugation or negation"),
        (lambda: torch.nn.Linear(2, 2), r"names 'torch\.nn\.modules\.linear\.Linear'"),
        (lambda: argparse.Namespace(a=1), r"names 'argparse\.Namespace'"),
        (lambda: np.float64(3), r"names 'numpy\."),
        (lambda: np.ones(2), r"names 'numpy\."),
        (lambda: torch.load, r"names 'torch\.serialization\.load'"),
    ],
)
def test_anything_else_is_rejected(saved, make, message):
    with pytest.raises(PickledError, match=rf"a\.pth: .*{message}"):
        saved({"state_dict": {"a": torch.ones(2)}, "other": [make()]})


def written() -> OrderedDict[str, np.ndarray]:
    random = np.random.default_rng(0)
    kinds = [str(dtype).removeprefix("torch.") for dtype in CLASSIC]
    dtypes = [getattr(ml_dtypes, kind, None) or np.dtype(kind) for kind in kinds]
    return OrderedDict(
        **{
            f"kind.{np.dtype(dtype).name}": random.integers(0, 2, (3, 5)).astype(dtype)
            for dtype in dtypes
        },
        noise=random.standard_normal((4, 7)).astype(ml_dtypes.bfloat16),
        scalar=np.array(-2.5, ml_dtypes.bfloat16),
        number=np.array(2**40),
        empty=np.zeros((0, 3), np.float16),
        transposed=random.standard_normal((2, 3, 4)).transpose(2, 0, 1),
        large=np.zeros(70_000, np.uint8),
        ünïcode=np.ones(1, np.float32),
    )


@pytest.mark.parametrize("mapped", [False, True])
def test_torch_reads_what_is_written(mapped, tmp_path):
    tensors = written()
    write_pickled(tmp_path / "a.pth", tensors)
    read = torch.load(tmp_path / "a.pth", weights_only=True, mmap=mapped)
    assert isinstance(read, OrderedDict)
    assert list(read) == list(tensors)
    for name, value in tensors.items():
        assert read[name].is_contiguous()
        assert_same(np.ascontiguousarray(value).reshape(value.shape), read[name])


def test_a_module_loads_what_is_written(tmp_path):
    source, target = torch.nn.LayerNorm(3), torch.nn.LayerNorm(3)
    with torch.no_grad():
        source.weight.copy_(torch.tensor([1.0, -2.0, 3.0]))
    tensors = {name: value.numpy() for name, value in source.state_dict().items()}
    write_pickled(tmp_path / "a.bin", tensors)
    target.load_state_dict(torch.load(tmp_path / "a.bin", weights_only=True))
    assert torch.equal(target.weight, source.weight)


def test_what_is_rejected_torch_rejects_too(tmp_path):
    """The bar is the one of `weights_only=True`, which users know."""
    torch.save({"model": {"a": torch.ones(2)}, "args": argparse.Namespace(a=1)}, tmp_path / "a.pth")
    with pytest.raises(pickle.UnpicklingError, match=r"argparse\.Namespace"):
        torch.load(tmp_path / "a.pth", weights_only=True)
    with pytest.raises(PickledError, match=r"argparse\.Namespace"):
        read_pickled(tmp_path / "a.pth")
