"""WanTransformer and UMT5Text without torch: invariances, precision, rejections."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.models import TINY, WAN, random_params, shapes_of
from glfa_jax.models.layers import RMSNorm, gelu_tanh
from glfa_jax.models.umt5 import UMT5Text
from glfa_jax.models.wan import WanTransformer

SMALL = WanTransformer.from_config(TINY["wan"])
IMAGES = {"image_dim": 1280, "added_kv_proj_dim": 5120, "in_channels": 36}


def _zeros(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_defaults_are_the_model_of_1_3_billion() -> None:
    assert WanTransformer.from_config(WAN) == WanTransformer()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            IMAGES,
            "image_dim is 1280, added_kv_proj_dim is 5120, in_channels is 36 and out_channels",
        ),
        ({"in_channels": 36}, "36 and out_channels 16: a model that starts from images, supported"),
        ({"pos_embed_seq_len": 514}, "pos_embed_seq_len is 514: a model that starts from images"),
        ({"qk_norm": None}, "qk_norm is None, supported is 'rms_norm_across_heads'"),
        ({"vace_layers": [0, 5]}, "vace_layers is no option of WanTransformer"),
        ({"num_layers": 10**9}, "num_layers is 1000000000, must be one integer from 1 to 64"),
        ({"num_layers": True}, "num_layers is True, must be one integer"),
        ({"patch_size": [2, 2]}, r"patch_size: \[2, 2\], must be three: of"),
        ({"patch_size": 2}, "patch_size is 2, must be a list"),
        ({"attention_head_dim": 9}, "attention_head_dim: 9, must be even"),
        ({"freq_dim": 255}, "freq_dim: 255, must be even"),
        ({"eps": "1e-6"}, "eps is '1e-6', must be a number"),
    ],
)
def test_unsupported_options_are_named(change: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        WanTransformer.from_config(WAN | change)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="num_attention_heads is missing; ffn_dim is missing"):
        WanTransformer.from_config({"num_layers": 2})


@pytest.mark.parametrize(
    ("shape", "width", "sentence"),
    [
        ((1, 2, 4, 4, 3), 12, "sample: 3 channels in its last axis, must be 16"),
        ((1, 2, 4, 4, 16), 13, "conditioning: width 13, must be text_dim 12"),
        ((1, 2, 5, 4, 16), 12, "sample: 5 rows, must be a multiple of 2, at most 8"),
        ((1, 2, 4, 10, 16), 12, "sample: 10 columns, must be a multiple of 2, at most 8"),
        ((1, 5, 4, 4, 16), 12, "sample: 5 frames, must be a multiple of 1, at most 4"),
        ((1, 0, 4, 4, 16), 12, "sample: 0 frames, must be"),
    ],
)
def test_wrong_inputs_are_named(shape: tuple, width: int, sentence: str) -> None:
    module = SMALL.clone(rope_max_seq_len=4)
    with pytest.raises(ValueError, match=sentence):
        jax.eval_shape(
            module.init, jax.random.key(0), _zeros(*shape), _zeros(1), _zeros(1, 3, width)
        )


@pytest.fixture(scope="module")
def small() -> tuple[dict, tuple[np.ndarray, ...]]:
    """Random parameters of `SMALL`; two clips of two frames, and five tokens of each."""
    params = random_params(shapes_of("wan", TINY["wan"]), std=0.2, scale=1.0)
    rng = np.random.default_rng(1)
    x, tokens = (rng.standard_normal(s, np.float32) for s in ((2, 2, 4, 6, 16), (2, 5, 12)))
    return {"params": params}, (x, np.array([20.5, 700], np.float32), tokens)


def test_clips_are_alone_and_tokens_have_no_order(small) -> None:
    params, (x, t, tokens) = small
    apply = jax.jit(SMALL.apply)
    both = apply(params, x, t, tokens)
    np.testing.assert_allclose(apply(params, x[1:], t[1], tokens[1:]), both[1:], atol=1e-5)
    np.testing.assert_allclose(apply(params, x, t, tokens[:, ::-1]), both, atol=1e-5)
    # But everything counts: every frame for every other, the time, every token.
    for changed in (
        (np.concatenate([x[:, :1], x[:, 1:] + 1], 1), t, tokens),
        (x, t + 1, tokens),
        (x, t, np.concatenate([tokens[:, :4], -tokens[:, 4:]], 1)),
    ):
        change = np.abs(apply(params, *changed) - both)[:, 0]
        assert change.max((1, 2, 3)).min() > 1e-4


def test_bfloat16_keeps_modulation_and_result_in_float32(small) -> None:
    params, inputs = small
    exact = jax.jit(SMALL.apply)(params, *inputs)
    half = jax.jit(SMALL.clone(dtype=jnp.bfloat16).apply)(params, *inputs)
    assert half.dtype == jnp.float32
    assert not bool((half == half.astype(jnp.bfloat16).astype(jnp.float32)).all())
    assert np.abs(half - exact).max() < 0.05 * np.abs(exact).max()
    # Parameters that are kept in bfloat16 are used as they are.
    frozen = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    less = jax.jit(SMALL.clone(dtype=jnp.bfloat16).apply)(frozen, *inputs)
    assert less.dtype == jnp.float32
    assert np.abs(less - exact).max() < 0.05 * np.abs(exact).max()


def test_gelu_tanh() -> None:
    x = jnp.linspace(-8, 8, 4001)
    plain = jax.vmap(jax.value_and_grad(lambda x: jax.nn.gelu(x, approximate=True)))
    for ours, wanted in zip(jax.vmap(jax.value_and_grad(gelu_tanh))(x), plain(x), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-6, atol=5e-6)
    assert gelu_tanh(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_rms_norm() -> None:
    x = np.random.default_rng(0).normal(1, 3, (4, 6)).astype(np.float32)
    scale = np.arange(6, dtype=np.float32)
    got = RMSNorm(0.5).apply({"params": {"scale": scale}}, x)
    wanted = scale * x / np.sqrt((x**2).mean(-1, keepdims=True) + 0.5)
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"feed_forward_proj": "relu"}, "feed_forward_proj is 'relu', supported is 'gated-gelu'"),
        ({"model_type": "t5"}, "model_type is 't5', supported is 'umt5'"),
        ({"num_layers": 0}, "num_layers is 0, must be one integer from 1 to 64"),
        ({"relative_attention_num_buckets": 3}, "3 relative_attention_num_buckets, must be 4"),
        ({"relative_attention_max_distance": 2}, "max_distance 2"),
        ({"pad_token_id": None}, "pad_token_id is None, must be one integer from 0"),
    ],
)
def test_other_text_encoders_are_named(change: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        UMT5Text.from_config(TINY["umt5_text"] | change)


def test_padding_is_not_seen_and_comes_out_zero() -> None:
    module = UMT5Text.from_config(TINY["umt5_text"])
    params = {"params": random_params(shapes_of("umt5_text", TINY["umt5_text"]), scale=1.0)}
    apply = jax.jit(module.apply)
    tokens = np.array([[3, 4, 5, 0, 0], [0, 0, 0, 0, 0]], np.int32)
    hidden = np.asarray(apply(params, tokens).hidden)
    assert np.isfinite(hidden).all()
    assert not hidden[0, 3:].any()
    assert not hidden[1].any()
    np.testing.assert_allclose(hidden[:1, :3], apply(params, tokens[:1, :3]).hidden, atol=1e-5)
