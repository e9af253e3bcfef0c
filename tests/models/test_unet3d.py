"""UNet3D, the VAE and LoRA without torch: full-size shapes, identities, rejections."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from benchmarks.models import TINY, UNET, VAE
from glfa_jax.generators.unet3d import UNet3DGenerator
from glfa_jax.models.lora import init_lora, merge
from glfa_jax.models.unet3d import UNet3D
from glfa_jax.models.unet3d_blocks import TemporalConv, TransformerBlock, upsample
from glfa_jax.models.vae import AutoencoderKL

PATTERNS = UNet3DGenerator.trainable["lora"].patterns
SMALL = UNet3D(
    block_out_channels=(8, 8),
    down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
    up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
    layers_per_block=1,
    norm_num_groups=2,
    attention_head_dim=4,
    cross_attention_dim=3,
)


def _zeros(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@pytest.fixture(scope="module")
def full_size() -> dict:
    model = UNet3D.from_config(UNET)
    timestep = jax.ShapeDtypeStruct((1,), jnp.int32)
    return jax.eval_shape(
        model.init, jax.random.key(0), _zeros(1, 2, 8, 8, 4), timestep, _zeros(1, 77, 1024)
    )["params"]


def test_full_size_counts(full_size: dict) -> None:
    sizes = {".".join(path): leaf.size for path, leaf in flatten_dict(full_size).items()}
    assert sum(sizes.values()) == 1_411_233_860
    trained = [
        size
        for name, size in sizes.items()
        if any(part in name for part in ("attn1", "attn2", "temp_conv"))
    ]
    assert (len(trained), sum(trained)) == (682, 468_064_256)


def test_defaults_are_modelscope() -> None:
    assert UNet3D.from_config(UNET) == UNet3D()


def test_vae_full_size_count() -> None:
    model = AutoencoderKL.from_config(VAE)
    params = jax.eval_shape(model.init, jax.random.key(0), _zeros(1, 16, 16, 3))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 83_653_863
    assert model == AutoencoderKL()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"act_fn": "gelu"}, "act_fn is 'gelu', supported is 'silu' or 'swish'"),
        ({"time_cond_proj_dim": 8}, "time_cond_proj_dim is 8, supported is None"),
        ({"class_embed_type": "timestep"}, "class_embed_type is no option of UNet3D"),
        ({"down_block_types": ["DownBlock2D"] * 4}, "DownBlock2D.* not among"),
        ({"up_block_types": ["UpBlock3D"] * 3}, "3 given for 4 block_out_channels"),
        ({"attention_head_dim": [5, 10, 20, 20]}, "attention_head_dim is .*, must be one integer"),
        ({"norm_num_groups": None}, "norm_num_groups is None, must be one integer"),
    ],
)
def test_unsupported_options_are_named(change: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        UNet3D.from_config(UNET | change)


def test_missing_and_unsupported_are_reported_together() -> None:
    config = {key: VAE[key] for key in ("block_out_channels", "down_block_types")}
    with pytest.raises(ValueError, match=r"layers_per_block is missing; shift_factor is 0\.1"):
        AutoencoderKL.from_config(config | {"shift_factor": 0.1})


def test_wrong_inputs_are_named() -> None:
    def shapes(channels: int, width: int) -> None:
        jax.eval_shape(
            UNet3D().init,
            jax.random.key(0),
            _zeros(1, 2, 8, 8, channels),
            jax.ShapeDtypeStruct((), jnp.int32),
            _zeros(1, 77, width),
        )

    with pytest.raises(ValueError, match="sample: 3 channels in its last axis, must be 4"):
        shapes(3, 1024)
    with pytest.raises(ValueError, match="conditioning: width 768, must be cross_attention_dim"):
        shapes(4, 768)
    with pytest.raises(ValueError, match="multiples of 8"):
        jax.eval_shape(AutoencoderKL().init, jax.random.key(0), _zeros(1, 20, 16, 3))


def test_new_temporal_convolution_is_the_identity() -> None:
    layer = TemporalConv(norm_num_groups=2)
    x = jax.random.normal(jax.random.key(0), (1, 3, 2, 2, 4))
    params = layer.init(jax.random.key(1), x)
    np.testing.assert_array_equal(layer.apply(params, x), x)


def test_temporal_convolutions_drop_where_diffusers_does() -> None:
    """Before every convolution but the first, a share of the values; the rest grows by it."""
    layer, rng = TemporalConv(norm_num_groups=2, dropout=0.25), np.random.default_rng(0)
    x = rng.standard_normal((2, 4, 16, 16, 8)).astype(np.float32)
    rngs = {"dropout": jax.random.key(1)}
    params = layer.init({"params": jax.random.key(0), **rngs}, x)["params"]
    assert jax.tree.map(np.shape, params) == jax.tree.map(
        np.shape, TemporalConv(norm_num_groups=2).init(jax.random.key(0), x)["params"]
    )
    _, seen = layer.apply({"params": params}, x, rngs=rngs, capture_intermediates=True)
    kept = {
        name: y["__call__"][0] for name, y in seen["intermediates"].items() if name != "__call__"
    }
    assert [name for name in kept if name.endswith(".2")] == [
        "conv1.2",
        "conv2.2",
        "conv3.2",
        "conv4.2",
    ]
    for name in ("conv2", "conv3", "conv4"):
        dropped, whole = kept[f"{name}.2"], nn.silu(kept[f"{name}.0"])
        zero = dropped == 0
        assert abs(zero.mean() - 0.25) < 0.02
        np.testing.assert_allclose(dropped[~zero], whole[~zero] / 0.75, rtol=1e-5)


@pytest.fixture(scope="module")
def small() -> tuple[dict, tuple[jax.Array, ...]]:
    """New parameters of `SMALL`, and a clip of three frames for each of two rows."""
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 4, 4))
    t, tokens = jnp.array([3, 500]), jax.random.normal(jax.random.key(1), (2, 2, 3))
    return jax.jit(SMALL.init)(jax.random.key(2), x, t, tokens), (x, t, tokens)


@pytest.fixture(scope="module")
def apply() -> Callable[..., jax.Array]:
    return jax.jit(SMALL.apply)


def test_a_model_drops_while_training_only(small, apply) -> None:
    new, inputs = small
    # New temporal convolutions are the identity, whatever is dropped in them.
    params = jax.tree.map(lambda x: x + 0.1 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), new)

    def trained(model: UNet3D) -> Callable[[jax.Array], jax.Array]:
        program = jax.jit(
            lambda params, key: model.apply(
                params, *inputs, deterministic=False, rngs={"dropout": key}
            )
        )
        return partial(program, params)

    keys, dropping = jax.random.split(jax.random.key(0)), SMALL.clone(dropout=0.1)
    still = apply(params, *inputs)
    np.testing.assert_array_equal(jax.jit(dropping.apply)(params, *inputs), still)
    np.testing.assert_array_equal(trained(SMALL)(keys[0]), still)
    dropped = trained(dropping)
    once = dropped(keys[0])
    assert np.abs(once - still).max() > 1e-3
    np.testing.assert_allclose(trained(dropping.clone(remat=True))(keys[0]), once, atol=1e-5)
    assert np.abs(dropped(keys[1]) - once).max() > 1e-3


def test_new_model_over_time_is_the_text_to_image_model_inside(small, apply) -> None:
    params, (x, t, tokens) = small
    clip = apply(params, x, t, tokens)
    alone = jax.jit(partial(SMALL.apply, over_time=False))
    np.testing.assert_allclose(clip, alone(params, x, t, tokens), atol=1e-5)
    # Frames of a clip then know nothing of each other; with the layers grown they do.
    np.testing.assert_allclose(alone(params, x[:, :1], t, tokens), clip[:, :1], atol=1e-5)
    grown = jax.tree.map(lambda leaf: leaf + 0.1, params)
    change = np.abs(apply(grown, x, t, tokens) - alone(grown, x, t, tokens))
    assert change.max((1, 2, 3, 4)).min() > 1e-3


def test_compute_dtype_leaves_parameters_alone() -> None:
    block = TransformerBlock(num_heads=2, head_dim=4, dtype=jnp.bfloat16)
    x = jnp.ones((1, 3, 8), jnp.bfloat16)
    out, variables = block.init_with_output(jax.random.key(0), x, context=None)
    assert out.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_results_are_not_rounded_to_what_is_computed_in(small) -> None:
    """Guidance would multiply the rounding, and frames have as many levels as it has bits."""

    def rounded(x: jax.Array) -> bool:
        assert x.dtype == jnp.float32
        return bool((x == x.astype(jnp.bfloat16).astype(jnp.float32)).all())

    params, inputs = small
    assert not rounded(jax.jit(SMALL.clone(dtype=jnp.bfloat16).apply)(params, *inputs))
    vae = AutoencoderKL.from_config(TINY["vae"], dtype=jnp.bfloat16)
    image = jax.random.uniform(jax.random.key(1), (1, 16, 16, 3))
    params = jax.jit(vae.init)(jax.random.key(0), image)
    posterior = jax.jit(partial(vae.apply, method="encode"))(params, image)
    assert not rounded(posterior.mean)
    assert not rounded(jax.jit(partial(vae.apply, method="decode"))(params, posterior.mean))


def test_log_variance_is_clamped() -> None:
    model = AutoencoderKL(
        block_out_channels=(4,),
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        layers_per_block=1,
        norm_num_groups=2,
    )
    image = jnp.zeros((1, 2, 2, 3))
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    params["quant_conv"]["bias"] = jnp.array([0.0, 0, 0, 0, 500, -500, 3, -500])
    encode = jax.jit(lambda params: model.apply({"params": params}, image, method="encode"))
    np.testing.assert_array_equal(encode(params).log_variance[0, 0, 0], [20, -30, 3, -30])


def test_rematerialisation_keeps_names_and_recomputes_every_layer() -> None:
    model = SMALL
    inputs = (jnp.zeros((1, 2, 4, 4, 4)), jnp.zeros(1, jnp.int32), jnp.zeros((1, 2, 3)))
    plain = jax.eval_shape(model.init, jax.random.key(0), *inputs)
    remat = jax.eval_shape(model.clone(remat=True).init, jax.random.key(0), *inputs)
    assert jax.tree.structure(plain) == jax.tree.structure(remat)

    def recomputed(model: UNet3D) -> int:
        program = jax.make_jaxpr(jax.grad(lambda p: model.apply(p, *inputs).sum()))(plain_zeros)
        return sum("remat" in equation.primitive.name for equation in program.eqns)

    plain_zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), plain)
    assert recomputed(model) == 0
    # 8 residual blocks, 8 temporal convolutions, 4 pairs of transformers and one transformer.
    assert recomputed(model.clone(remat=True)) >= 8 + 8 + 8 + 1


@pytest.mark.parametrize("size", [(4, 6), (3, 5), (5, 7)])
def test_upsample_takes_the_nearest(size: tuple[int, int]) -> None:
    x = np.arange(6, dtype=np.float32).reshape(1, 2, 3, 1)
    got = np.asarray(upsample(jnp.asarray(x), size=size))[0, :, :, 0]
    wanted = [
        [x[0, i * 2 // size[0], j * 3 // size[1], 0] for j in range(size[1])]
        for i in range(size[0])
    ]
    np.testing.assert_array_equal(got, wanted)


def test_lora_covers_attention_and_temporal_convolutions(full_size: dict) -> None:
    lora = jax.eval_shape(
        lambda params: init_lora(params, patterns=PATTERNS, rank=4, key=jax.random.key(0)),
        full_size,
    )
    adapted = {"/".join(path[:-1]) for path in flatten_dict(lora)}
    kernels = {
        "/".join(path)
        for path in flatten_dict(full_size)
        if path[-1] == "kernel"
        and any(part in ".".join(path) for part in ("attn1", "attn2", "temp_conv"))
    }
    assert adapted == kernels


@pytest.fixture
def tree() -> dict:
    keys = jax.random.split(jax.random.key(0), 3)
    attention = {"to_q": {"kernel": jax.random.normal(keys[0], (6, 5))}}
    conv = {"kernel": jax.random.normal(keys[1], (3, 4, 4)), "bias": jnp.ones(4)}
    return {"block": {"attn1": attention, "temp_convs.0": {"conv1.2": conv}}}


def test_fresh_lora_changes_nothing_and_learns(tree: dict) -> None:
    lora = init_lora(tree, patterns=PATTERNS, rank=2, key=jax.random.key(1))
    merged = merge(tree, lora, scale=0.5)
    assert jax.tree.structure(merged) == jax.tree.structure(tree)
    for ours, theirs in zip(jax.tree.leaves(merged), jax.tree.leaves(tree), strict=True):
        np.testing.assert_array_equal(ours, theirs)

    gradient = jax.grad(
        lambda lora: sum((x**2).sum() for x in jax.tree.leaves(merge(tree, lora, scale=0.5)))
    )(lora)
    for path, leaf in flatten_dict(gradient).items():
        assert bool(jnp.any(leaf != 0)) == (path[-1] == "up"), path


def test_lora_adds_a_product_of_rank_r(tree: dict) -> None:
    lora = init_lora(tree, patterns=PATTERNS, rank=2, key=jax.random.key(1))
    lora = jax.tree.map(lambda x: x + jnp.sin(jnp.arange(x.size)).reshape(x.shape), lora)
    merged = merge(tree, lora, scale=0.5)
    pair = lora["block"]["temp_convs.0"]["conv1.2"]["kernel"]
    kernel = tree["block"]["temp_convs.0"]["conv1.2"]["kernel"]
    wanted = kernel + 0.5 * jnp.einsum("kir,ro->kio", pair["down"], pair["up"])
    got = merged["block"]["temp_convs.0"]["conv1.2"]["kernel"]
    np.testing.assert_allclose(got, wanted, rtol=1e-5)
    assert jnp.linalg.matrix_rank((got - kernel).reshape(12, 4), rtol=1e-4) == 2
    np.testing.assert_array_equal(merged["block"]["temp_convs.0"]["conv1.2"]["bias"], 1)


def test_lora_rejects_what_fits_nothing(tree: dict) -> None:
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"attn3.* match no parameter"):
        init_lora(tree, patterns=("attn3",), rank=2, key=key)
    with pytest.raises(ValueError, match=r"bias'.* are no kernels"):
        init_lora(tree, patterns=("temp_convs",), rank=2, key=key)
    with pytest.raises(ValueError, match="rank: must be at least 1, got 0"):
        init_lora(tree, patterns=PATTERNS, rank=0, key=key)
    lora = init_lora(tree, patterns=PATTERNS, rank=2, key=key)
    with pytest.raises(ValueError, match="is no parameter of this model"):
        merge({"other": jnp.ones((2, 2))}, lora, scale=1.0)
