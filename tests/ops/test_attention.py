"""Attention by every implementation, against its definition."""

import importlib.util
import os
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from glfa_jax import config
from glfa_jax.ops import attention as module
from glfa_jax.ops import attention_gpu, attention_tpu
from glfa_jax.ops.attention import attention, using
from glfa_jax.training.compile_only import devices_of
from glfa_jax.training.sharding import make_mesh
from tests.gradients import draw, error, with_gradients

ROOT = Path(__file__).parents[2]
HEADS, WIDTH = 2, 5


def plain_attention(query, key, value, mask=None):
    scores = jnp.einsum("...qhd,...khd->...hqk", query, key) * query.shape[-1] ** -0.5
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    return jnp.einsum("...hqk,...khd->...qhd", jax.nn.softmax(scores, axis=-1), value)


# The last has a query that sees nothing: all its keys count alike.
MASKS = {
    "none": None,
    "some": np.tri(4, 6, dtype=bool),
    "a row": np.tri(4, 6, -1, dtype=bool),
}


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 3e-2)])
@pytest.mark.parametrize("mask", MASKS)
def test_attention(mask: str, dtype: str, tolerance: float) -> None:
    keys = (3, 2, 6, HEADS, WIDTH)
    *given, g = draw((3, 2, 4, HEADS, WIDTH), keys, keys, (3, 2, 4, HEADS, WIDTH), dtype=dtype)
    exact = [x.astype(jnp.float32) for x in given]
    options = {"mask": MASKS[mask]}
    found, gradients = with_gradients(partial(attention, **options), g, *given)
    wanted, plain = with_gradients(
        partial(plain_attention, **options), g.astype(jnp.float32), *exact
    )
    assert found.dtype == dtype
    assert error(found, wanted) < tolerance
    assert {x.dtype for x in gradients} == {jnp.dtype(dtype)}
    assert error(gradients, plain) < tolerance


def test_large_scores_do_not_overflow() -> None:
    query, key, value = draw(*[(1, 4, HEADS, WIDTH)] * 3)
    wanted = jax.jit(plain_attention)(30 * query, key, value)
    found, gradients = with_gradients(attention, wanted, 30 * query, key, value)
    assert error(found, wanted) < 1e-4
    assert all(np.isfinite(x).all() for x in gradients)


def test_dropout_of_attention_weights() -> None:
    given = draw(*[(1, 4, HEADS, WIDTH)] * 3)
    kept = attention(*given, dropout=lambda weights: weights)
    assert error(kept, plain_attention(*given)) < 1e-5
    assert float(jnp.abs(attention(*given, dropout=jnp.zeros_like)).max()) == 0


# `True`: as plain operations, compiled, where the default would call Python for every block.
interpreted = partial(pltpu.force_tpu_interpret_mode, True)
# Neither length fills the kernel's tiles.
LONG_QUERY, LONG_KEY = (2, 140, HEADS, 16), (2, 200, HEADS, 16)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_the_kernel_for_tpus(dtype: str, tolerance: float) -> None:
    *given, g = draw(LONG_QUERY, LONG_KEY, LONG_KEY, LONG_QUERY, dtype=dtype)
    with interpreted():
        found, gradients = with_gradients(partial(attention, implementation="tpu"), g, *given)
    exact = [x.astype(jnp.float32) for x in (g, *given)]
    wanted, plain = with_gradients(plain_attention, *exact)
    assert found.dtype == dtype
    assert error(found, wanted) < tolerance
    assert {x.dtype for x in gradients} == {jnp.dtype(dtype)}
    assert error(gradients, plain) < tolerance


@pytest.mark.gpu
@pytest.mark.parametrize("length", [1024, 577])
def test_the_kernel_for_gpus(length: int) -> None:
    *given, g = draw(*[(2, 3, length, HEADS, 64)] * 4, dtype="bfloat16")
    exact = [x.astype(jnp.float32) for x in (g, *given)]
    wanted, plain = with_gradients(plain_attention, *exact)
    for name in ("cudnn", "auto"):
        found, gradients = with_gradients(partial(attention, implementation=name), g, *given)
        assert error(found, wanted) < 2e-2
        assert error(gradients, plain) < 2e-2


@pytest.fixture
def usual_precision():
    """As programs run; tests ask for more, which the kernel for TPUs does not know."""
    with jax.default_matmul_precision("default"):
        yield


def kernels(query: tuple[int, ...], *, dtype: str = "bfloat16", keys: int = 0, **options) -> int:
    """How many kernels the traced program calls."""
    q = jax.ShapeDtypeStruct(query, dtype)
    k = jax.ShapeDtypeStruct((*query[:-3], keys or query[-3], *query[-2:]), dtype)
    return str(jax.make_jaxpr(partial(attention, **options))(q, k, k)).count("pallas_call")


@pytest.mark.usefixtures("usual_precision")
def test_auto_takes_the_kernel_of_the_devices_that_are_compiled_for(monkeypatch) -> None:
    long, short = (2, 512, HEADS, 64), (2, 511, HEADS, 64)
    assert kernels(long) == 0  # on the CPU
    monkeypatch.setattr(module, "platform", lambda: "tpu")
    assert kernels(long) == 1
    assert kernels(long, dtype="float32") == 1
    assert kernels(short) == 0
    assert kernels(long, keys=77) == 0
    assert kernels(long, mask=np.tri(512, dtype=bool)) == 0
    assert kernels(long, dropout=lambda weights: weights) == 0
    with using("einsum"):
        assert kernels(long) == 0
        assert kernels(long, implementation="auto") == 1
    with using("fused"):
        assert kernels(short) == 1
        assert kernels(short, keys=77) == 0
    with jax.default_matmul_precision("highest"):
        assert kernels(long) == 0


def test_what_cudnn_takes(monkeypatch) -> None:
    monkeypatch.setattr(module, "platform", lambda: "gpu")

    def kernel(width: int, dtype: str):
        x = jax.ShapeDtypeStruct((2, 512, HEADS, width), dtype)
        return module._kernel(x, x, shortest=512)

    assert kernel(64, "bfloat16") is attention_gpu
    assert kernel(64, "float32") is None
    assert kernel(60, "bfloat16") is None
    assert kernel(512, "bfloat16") is None


@pytest.mark.usefixtures("usual_precision")
def test_a_kernel_that_does_not_run_is_left_out_and_said(monkeypatch) -> None:
    """The CPU passed for a TPU, which it is not."""
    monkeypatch.setattr(module, "platform", lambda: "tpu")
    monkeypatch.setattr(module.jax, "default_backend", lambda: "tpu")
    module._runs.cache_clear()
    with pytest.warns(UserWarning, match="the fused kernel does not run here"):
        assert kernels((2, 512, HEADS, 64)) == 0
    with warnings.catch_warnings(action="error"):  # once
        assert kernels((2, 1024, HEADS, 64)) == 0
    module._runs.cache_clear()


def test_a_kernel_that_computes_wrongly_is_left_out_and_said(monkeypatch) -> None:
    monkeypatch.setattr(attention_tpu, "attend", lambda query, key, value: value)
    module._runs.cache_clear()
    with pytest.warns(UserWarning, match="computes wrongly here"):
        assert not module._runs(attention_tpu)
    module._runs.cache_clear()


def test_fused_attention_without_a_kernel() -> None:
    given = draw(*[(1, 4, HEADS, WIDTH)] * 3)
    with pytest.warns(UserWarning, match="CPUs have no fused kernel"):
        found = attention(*given, implementation="fused")
    assert error(found, plain_attention(*given)) < 1e-5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"implementation": "flash"}, "'flash', must be auto, einsum, fused, cudnn or tpu"),
        ({"implementation": "tpu", "mask": np.tri(4, dtype=bool)}, "tpu takes no mask"),
    ],
)
def test_what_cannot_be_is_rejected(options: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        attention(*draw(*[(1, 4, HEADS, WIDTH)] * 3), **options)


def test_wide_and_long_sequences_fill_whole_tiles() -> None:
    """Larger blocks where they add little: 2880 positions become 3072, 720 become 768."""
    blocks = {length: attention_tpu._block(length) for length in (1024, 2880, 720, 513, 130)}
    assert blocks == {1024: 512, 2880: 512, 720: 256, 513: 128, 130: 128}
    assert attention_tpu._tiles(jnp.zeros((2, 720, 1, 160)), 256).shape == (2, 1, 768, 256)
    assert attention_tpu._tiles(jnp.zeros((2, 720, 1, 40)), 256).shape == (2, 1, 768, 40)


_FOUR_DEVICES = """
import jax
import jax.numpy as jnp
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from glfa_jax.ops.attention import attention, using
from glfa_jax.training.compile_only import devices_of
from glfa_jax.training.sharding import make_mesh
from tests.gradients import draw, error

assert jax.device_count() == 4
mesh = jax.make_mesh((2, 1, 2), ("data", "fsdp", "frame"), axis_types=(AxisType.Auto,) * 3)

def both(*given):
    y, pull = jax.vjp(attention, *given[:3])
    return y, pull(given[3])

# Rows and frames; rows alone, over all devices; rows that only some divide; none that any does.
for leading, lying in (
    ((2, 4), P("data", "frame")), ((4,), P(("data", "frame"))), ((2,), P("data")), ((3, 1), P())
):
    given = draw(*[(*leading, 130, 1, 8)] * 4)
    with using("einsum"):
        wanted = jax.jit(both)(*given)
    placed = jax.device_put(given, NamedSharding(mesh, lying))
    with using("tpu"), pltpu.force_tpu_interpret_mode(True), jax.set_mesh(mesh):
        compiled = jax.jit(both).lower(*placed).compile()
        found = compiled(*placed)
    assert error(found, wanted) < 1e-5, leading
    assert found[0].sharding.is_equivalent_to(placed[0].sharding, given[0].ndim), found[0].sharding
    moved = [name for name in ("all-gather", "all-to-all", "permute") if name in compiled.as_text()]
    assert not moved, (leading, moved)
"""


def test_every_device_computes_its_own_sequences() -> None:
    env = os.environ | {"JAX_NUM_CPU_DEVICES": "4"}
    command = [sys.executable, "-c", _FOUR_DEVICES]
    run = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.usefixtures("usual_precision")
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
def test_auto_compiles_kernels_for_a_mesh_of_tpus() -> None:
    """Without TPUs here: one forward and two for the gradient, each device's sequences its own."""
    mesh = make_mesh(config.MeshSize(frame=2), devices=devices_of("v5e:2x2"))
    where = NamedSharding(mesh, P(("data", "fsdp"), "frame"))
    given = jax.ShapeDtypeStruct((2, 4, 1040, HEADS, 64), "bfloat16", sharding=where)
    step = jax.grad(lambda *x: attention(*x).astype(jnp.float32).sum(), argnums=(0, 1, 2))
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        program = jax.jit(step).lower(given, given, given).compile().as_text()
    assert program.count('custom_call_target="tpu_custom_call"') == 3
    assert "all-gather" not in program


@pytest.mark.parametrize("ahead", [(3, 1), (1, 3), (1, 1), (1,)], ids=str)
def test_axes_of_one_sequence_change_nothing_and_are_left_out(ahead):
    """XLA:CPU computes products and sums more slowly with them."""
    query, key, value = draw(*((*ahead, n, HEADS, WIDTH) for n in (6, 4, 4)))
    found = attention(query, key, value)
    assert found.shape == query.shape
    np.testing.assert_allclose(found, plain_attention(query, key, value), atol=1e-6)
    traced = jax.make_jaxpr(attention)(query, key, value)
    assert f"f32[{','.join(str(n) for n in (*ahead, HEADS, 6, 4))}]" not in str(traced)
