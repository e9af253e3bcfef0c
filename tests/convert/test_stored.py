"""Parameters in their files: the same numbers, read when they are asked for, one at a time."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from glfa_jax import config
from glfa_jax.convert import pretrained
from glfa_jax.convert.directory import read_tensors
from glfa_jax.convert.mapping import Table, export_views, stored_params
from glfa_jax.convert.stored import Stored
from glfa_jax.convert.stream import write_safetensors
from glfa_jax.training.sharding import make_mesh, place_params
from tests.convert.test_pretrained import CONFIGS, params_of

COUNT, SIDE = 16, 1024  # arrays of 4 MiB


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(0)
    tensors = {f"{i}.weight": rng.standard_normal((SIDE, SIDE), "f4") for i in range(COUNT)}
    write_safetensors(place / "model.safetensors", tensors, metadata={})
    return place


@pytest.fixture
def params(folder):
    shape = jax.ShapeDtypeStruct((SIDE, SIDE), jnp.float32)
    shapes = {str(i): {"kernel": shape} for i in range(COUNT)}
    return stored_params(read_tensors(folder), shapes, Table())


def peak(action) -> float:
    """In arrays of 4 MiB, of what numpy holds."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1] / (4 * SIDE**2)
    finally:
        tracemalloc.stop()


def test_placing_never_holds_more_than_a_few_of_them(params):
    """One as it is and one cast, and casts that JAX lets go of only when it comes to it, after the
    transfer: of half the size each, two of them on a busy machine."""
    mesh = make_mesh(config.MeshSize(data=1), devices=jax.devices()[:1])
    placed = {}

    def place():
        placed.update(place_params(params, mesh, copy=True, from_bytes=0, dtype=jnp.bfloat16))

    found = peak(place)
    assert found < COUNT / 4
    for name, leaf in params.items():
        expected = np.asarray(leaf["kernel"]).astype(jnp.bfloat16)
        np.testing.assert_array_equal(placed[name]["kernel"], expected)


def test_writing_never_holds_two_of_them(params, folder, tmp_path):
    def write():
        tensors = export_views(params, Table())
        write_safetensors(tmp_path / "again.safetensors", tensors, metadata={})

    assert peak(write) < 3
    first, second = folder / "model.safetensors", tmp_path / "again.safetensors"
    assert first.read_bytes() == second.read_bytes()


def test_a_model_is_the_same_in_its_file_and_in_memory(tmp_path):
    pretrained.save("vit", tmp_path, params_of("vit"), config=CONFIGS["vit"])
    there = pretrained.load("vit", tmp_path, stored=True)
    here = pretrained.load("vit", tmp_path)
    assert there.module == here.module
    ours, theirs = (flatten_dict(loaded.variables) for loaded in (there, here))
    assert ours.keys() == theirs.keys()
    for path, leaf in ours.items():
        array = theirs[path]
        assert isinstance(leaf, Stored)
        for what in ("shape", "dtype", "ndim", "size", "nbytes"):
            assert getattr(leaf, what) == getattr(array, what)
        np.testing.assert_array_equal(np.asarray(leaf), array)
    assert jax.tree.all(
        jax.tree.map(np.array_equal, pretrained.in_memory(there.variables), here.variables)
    )


def test_none_is_read_unnoticed(params):
    leaf = params["0"]["kernel"]
    for use in (jax.device_put, jax.jit(lambda x: x + 1)):
        with pytest.raises(TypeError, match="not a valid JAX type"):
            use(leaf)
    assert jax.eval_shape(lambda x: x.T, leaf).shape == (SIDE, SIDE)
