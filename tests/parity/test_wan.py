"""WanTransformer against diffusers' WanTransformer3DModel: layers, outputs, gradients, names."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import (
    WanAttention as TheirAttention,
)
from diffusers.models.transformers.transformer_wan import (
    WanAttnProcessor,
    WanRotaryPosEmbed,
    WanTransformerBlock,
)
from flax.traverse_util import flatten_dict

from benchmarks import models
from glfa_jax.convert import pretrained
from glfa_jax.convert.mapping import export_params, import_params
from glfa_jax.convert.wan import TABLE
from glfa_jax.generators.wan import WanGenerator
from glfa_jax.models.rotary import rotary
from glfa_jax.models.wan import WanTransformer
from glfa_jax.models.wan_blocks import WanAttention, WanBlock
from tests.parity import parameter_gradients

SMALL = models.small_wan(heads=2, head=14, inner=24, layers=2, condition=10, channels=4)
# Patches that cut time, too, and rows and columns unequally; no norm before the condition.
OTHER = SMALL | {"patch_size": [2, 1, 3], "cross_attn_norm": False, "eps": 1e-3, "num_layers": 1}
OTHER |= {"attention_head_dim": 8, "num_attention_heads": 3}

_CHANNELS_OF_5B = {"in_channels": 48, "out_channels": 48}


def _pair(config: dict, *, seed: int) -> tuple[WanTransformer3DModel, WanTransformer, dict]:
    theirs = models.randomise(models.torch_model("wan", config), seed=seed)
    ours = WanTransformer.from_config(dict(theirs.config))
    return (
        theirs,
        ours,
        import_params(_tensors(theirs), pretrained.parameter_shapes("wan", ours), TABLE),
    )


def _tensors(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def _draw(*shapes: tuple[int, ...], seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape, np.float32) for shape in shapes]


def _first(x: np.ndarray) -> torch.Tensor:
    """Channels first."""
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 4, 1, 2, 3)))


def _last(x: torch.Tensor) -> np.ndarray:
    return x.detach().numpy().transpose(0, 2, 3, 4, 1)


def _error(ours: jax.Array, theirs: np.ndarray) -> float:
    """Largest difference, relative to the largest magnitude."""
    return float(np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max())


@pytest.fixture(scope="module")
def small() -> tuple[WanTransformer3DModel, WanTransformer, dict]:
    return _pair(SMALL, seed=0)


@pytest.mark.parametrize("head_dim", [4, 8, 14, 128])
@pytest.mark.parametrize("grid", [(1, 1, 1), (5, 7, 12)])
def test_rotary_positions(head_dim: int, grid: tuple[int, int, int]) -> None:
    theirs = WanRotaryPosEmbed(head_dim, (1, 1, 1), 64)(torch.zeros(1, 1, *grid))
    for ours, wanted in zip(rotary(grid, head_dim), theirs, strict=True):
        wanted = wanted.numpy().reshape(grid[0], grid[1] * grid[2], head_dim)
        np.testing.assert_array_equal(wanted[..., ::2], wanted[..., 1::2])
        np.testing.assert_allclose(ours, wanted[..., ::2], rtol=0, atol=1e-7)


@pytest.mark.parametrize("crossing", [False, True], ids=["in the clip", "to the condition"])
def test_attention(crossing: bool) -> None:
    grid, heads, head_dim = (2, 2, 3), 2, 14
    width = heads * head_dim
    theirs = models.randomise(
        TheirAttention(width, heads, head_dim, 1e-6, processor=WanAttnProcessor()), seed=1
    )
    ours = WanAttention(heads, head_dim, 1e-6)
    x, context = _draw((2, 2, 6, width), (2, 5, width), seed=2)
    given = {"context": context} if crossing else {"rotary": rotary(grid, head_dim)}
    turn = WanRotaryPosEmbed(head_dim, (1, 1, 1), 8)(torch.zeros(1, 1, *grid))
    with torch.no_grad():
        wanted = theirs(
            torch.from_numpy(x.reshape(2, 12, width)),
            torch.from_numpy(context) if crossing else None,
            None,
            None if crossing else turn,
        )
    shapes = jax.eval_shape(lambda: ours.init(jax.random.key(0), x, **given))["params"]
    params = import_params(_tensors(theirs), shapes, TABLE)
    with jax.default_matmul_precision("highest"):
        got = jax.jit(lambda p: ours.apply({"params": p}, x, **given))(params)
    assert _error(got, wanted.numpy().reshape(x.shape)) < 1e-5


@pytest.mark.parametrize("cross_attn_norm", [True, False])
def test_block(cross_attn_norm: bool) -> None:
    grid, heads, head_dim = (2, 2, 3), 2, 8
    width = heads * head_dim
    theirs = WanTransformerBlock(width, 24, heads, cross_attn_norm=cross_attn_norm, eps=1e-5)
    models.randomise(theirs, seed=3)
    ours = WanBlock(heads, head_dim, 24, 1e-5, cross_attn_norm)
    x, modulation, context = _draw((2, 2, 6, width), (2, 6, width), (2, 5, width), seed=4)
    given = {"modulation": modulation, "context": context, "rotary": rotary(grid, head_dim)}
    turn = WanRotaryPosEmbed(head_dim, (1, 1, 1), 8)(torch.zeros(1, 1, *grid))
    with torch.no_grad():
        wanted = theirs(
            torch.from_numpy(x.reshape(2, 12, width)),
            torch.from_numpy(context),
            torch.from_numpy(modulation),
            turn,
        )
    shapes = jax.eval_shape(lambda: ours.init(jax.random.key(0), x, **given))["params"]
    params = import_params(_tensors(theirs), shapes, TABLE)
    with jax.default_matmul_precision("highest"):
        got = jax.jit(lambda p: ours.apply({"params": p}, x, **given))(params)
    assert _error(got, wanted.numpy().reshape(x.shape)) < 1e-5


@pytest.mark.parametrize(
    ("config", "shape", "tokens", "timestep"),
    [
        (SMALL, (1, 1, 6, 10), 1, 1000.0),
        (SMALL, (2, 2, 2, 4), 3, 417.25),
        (OTHER, (2, 4, 3, 6), 9, [0.0, 999.5]),
    ],
    ids=["one frame", "one time for both", "other patches"],
)
def test_output(config: dict, shape: tuple, tokens: int, timestep: object, small: tuple) -> None:
    theirs, ours, params = small if config is SMALL else _pair(config, seed=1)
    sample, condition = _draw((*shape, 4), (shape[0], tokens, 10), seed=2)
    times = np.asarray(timestep, np.float32)
    with torch.no_grad():
        t = torch.from_numpy(np.broadcast_to(times, shape[:1]).copy())
        wanted = _last(theirs(_first(sample), t, torch.from_numpy(condition)).sample)
    with jax.default_matmul_precision("highest"):
        got = jax.jit(ours.apply)({"params": params}, sample, times, condition)
    assert got.shape == sample.shape
    assert _error(got, wanted) < 1e-4


def test_output_and_gradients(small: tuple) -> None:
    theirs, ours, params = small
    sample, condition, weight = _draw((2, 4, 6, 10, 4), (2, 7, 10), (2, 4, 6, 10, 4), seed=4)
    timestep = np.array([3, 871], np.int32)

    inputs = [_first(sample).requires_grad_(), torch.from_numpy(condition).requires_grad_()]
    output = theirs(inputs[0], torch.from_numpy(timestep), inputs[1]).sample
    (output * _first(weight)).sum().backward()

    # Recomputed block by block, which must not change anything.
    module = ours.clone(remat=True)

    @jax.jit
    def run(*trees: dict | jax.Array) -> tuple:
        def loss(params: dict, sample: jax.Array, condition: jax.Array) -> tuple:
            out = module.apply({"params": params}, sample, timestep, condition)
            return (out * weight).sum(), out

        return jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(*trees)

    with jax.default_matmul_precision("highest"):
        (of_params, of_sample, of_condition), got = run(params, sample, condition)
    assert _error(got, _last(output)) < 1e-4
    assert _error(of_sample, _last(inputs[0].grad)) < 1e-3
    assert _error(of_condition, inputs[1].grad.numpy()) < 1e-3
    parameter_gradients.assert_alike(of_params, theirs, TABLE)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, jnp.bfloat16])
def test_export_inverts_import(dtype: type, small: tuple) -> None:
    theirs, ours, _ = small
    source = {name: tensor.astype(dtype) for name, tensor in _tensors(theirs).items()}
    target = pretrained.parameter_shapes("wan", ours)
    exported = export_params(import_params(source, target, TABLE), TABLE)
    assert exported.keys() == source.keys()
    for name, tensor in source.items():
        assert exported[name].dtype == tensor.dtype
        np.testing.assert_array_equal(exported[name], tensor, err_msg=name)


def test_the_same_keeps_32_bits_where_the_rest_has_16() -> None:
    words = WanTransformer3DModel._keep_in_fp32_modules
    names = {path: TABLE.torch_name(path) for path in flatten_dict(models.shapes_of("wan", SMALL))}
    ours = {
        name
        for path, name in names.items()
        if any(re.search(pattern, "/".join(path)) for pattern in WanGenerator.exact)
    }
    assert ours == {name for name in names.values() if any(word in name for word in words)}
    assert 0 < len(ours) < len(names) / 2


@pytest.mark.parametrize(
    ("change", "count"),
    [
        ({}, 1_418_996_800),
        ({"num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 2}, None),
        ({"num_attention_heads": 24, "ffn_dim": 14336, "num_layers": 2, **_CHANNELS_OF_5B}, None),
    ],
    ids=["2.1, 1.3B", "two layers of 2.1 and 2.2, 14B", "two layers of 2.2, 5B"],
)
def test_published_models_have_these_tensors(change: dict, count: int | None) -> None:
    config = models.WAN | change
    with torch.device("meta"):
        theirs = models.torch_model("wan", config).state_dict()
    shapes = flatten_dict(models.shapes_of("wan", config))
    ours = {}
    for path, leaf in shapes.items():
        name = TABLE.torch_name(path)
        empty = np.broadcast_to(np.zeros((), bool), leaf.shape)
        ours[name] = TABLE.transform(path, leaf.ndim).to_torch(empty).shape
    assert ours == {name: tuple(tensor.shape) for name, tensor in theirs.items()}
    if count is not None:
        assert len(shapes) == 825
        assert sum(leaf.size for leaf in shapes.values()) == count
