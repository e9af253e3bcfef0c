"""The fMRI models: published sizes, identity at initialisation, what stays zero, who sees whom."""

import json
from functools import partial
from pathlib import Path

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from glfa_jax.convert import glfa
from glfa_jax.convert.mapping import Table, export_params
from glfa_jax.models.fmri_autoencoder import FmriAutoencoder, sincos_positions
from glfa_jax.models.fmri_encoder import FmriEncoder
from glfa_jax.models.glfa import GlfaLayer, from_patches, to_patches

REFERENCE = Path(__file__).parents[1] / "reference"
SMALL = FmriEncoder(
    height=16,
    width=24,
    window=3,
    tokens=6,
    clip_dim=8,
    patch_size=8,
    dim=16,
    depth=1,
    num_heads=2,
    hidden_tokens=5,
    conditioning_heads=2,
    kernel_size=3,
)


# Op by op, compiling would take most of the time.
apply = jax.jit(SMALL.apply)


@pytest.fixture(scope="module")
def fmri():
    rng = np.random.default_rng(1)
    maps = rng.standard_normal((2, 3, 16, 24), np.float32)
    return maps * (rng.random((16, 24)) > 0.4)


@pytest.fixture(scope="module")
def variables(fmri):
    return jax.jit(SMALL.init)(jax.random.key(0), fmri)


def shapes(module, *inputs):
    return jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]


def torch_shapes(params, table: Table) -> dict:
    zeros = jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), bool), leaf.shape), params)
    return {name: list(leaf.shape) for name, leaf in export_params(zeros, table).items()}


def official(kind: str) -> dict:
    return json.loads((REFERENCE / "official_checkpoint_keys.json").read_text())[kind]


def test_autoencoder_has_the_published_size_and_names():
    module = FmriAutoencoder(256, 256)
    params = shapes(module, jnp.zeros((1, 256, 256)))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 609_874_176
    ours = {f"transformer.{k}": v for k, v in torch_shapes(params, glfa.AUTOENCODER).items()}
    assert ours == official("pretrained_autoencoder")


def test_encoder_has_the_official_names_but_for_the_decoder():
    module = FmriEncoder(256, 256, 5, tokens=77, clip_dim=1024)
    params = shapes(module, jnp.zeros((1, 5, 256, 256)))
    decoder = ("decoder", "mask_token", "transformer.pred.")
    wanted = {
        name: shape
        for name, shape in official("encoder_stage1_head_fmri2clip").items()
        if not any(part in name for part in decoder)
    }
    assert torch_shapes(params, glfa.ENCODER) == wanted


def test_linear_head_has_the_official_shape():
    module = FmriEncoder(256, 256, 5, tokens=77, clip_dim=1024, head="linear")
    params = shapes(module, jnp.zeros((1, 5, 256, 256)))["fmri2clip"]
    ours = {f"fmri2clip.{k}": v for k, v in torch_shapes(params, glfa.LINEAR_HEAD).items()}
    assert ours == official("encoder_stage1_head_linear_replaces_fmri2clip_with")


def test_alignment_has_the_published_size():
    params = shapes(GlfaLayer(256, 256), jnp.zeros((1, 256, 256)))
    assert params["weight"].size == 11_075_584
    assert params["global_align_weight"].size == 65_536


def test_alignment_is_the_identity_at_initialisation(fmri):
    module = GlfaLayer(16, 24, patch_size=8, kernel_size=13)
    aligned, _ = jax.jit(module.init_with_output)(jax.random.key(0), fmri)
    # 169 weights of 1e-4 / 13 in mean magnitude 6e-6 each: 1e-3 of the mass at most moves.
    aligned = np.asarray(aligned)
    assert np.abs(aligned - fmri).max() < 5e-3
    assert np.all(aligned[fmri == 0] == 0)


def test_zero_pixels_stay_zero_whatever_the_weights(fmri):
    module = GlfaLayer(16, 24, patch_size=8, kernel_size=5)
    variables = shapes(module, fmri)
    wild = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(3), leaf.shape), variables)
    aligned = np.asarray(jax.jit(module.apply)({"params": wild}, fmri))
    assert np.all(aligned[fmri == 0] == 0)
    assert np.abs(aligned[fmri != 0]).mean() > 0.1


def test_local_part_is_a_convex_combination(fmri):
    module = GlfaLayer(16, 24, kernel_size=5, global_part=False)
    variables = {"params": {"weight": jax.random.normal(jax.random.key(3), (25, 16, 24))}}
    ones = jnp.ones((1, 16, 24))
    inside = module.apply(variables, ones)[0, 2:-2, 2:-2]
    np.testing.assert_allclose(inside, 1.0, rtol=1e-6)
    assert np.abs(module.apply(variables, fmri)).max() <= np.abs(fmri).max()


def test_patches_are_row_major_and_invert():
    x = jnp.arange(2 * 4 * 6).reshape(2, 4, 6)
    patches = to_patches(x, 2)
    np.testing.assert_array_equal(patches[0, 1], [2, 3, 8, 9])
    np.testing.assert_array_equal(patches[0, 3], [12, 13, 18, 19])
    np.testing.assert_array_equal(from_patches(patches, 4, 6, 2), x)


def test_positions_encode_the_column_first():
    table = sincos_positions(2, 3, 8)
    assert not table[0].any()
    rows = table[1:].reshape(2, 3, 8)
    np.testing.assert_array_equal(rows[0, :, :4], rows[1, :, :4])
    np.testing.assert_array_equal(rows[:, 0, 4:], rows[:, 2, 4:])
    np.testing.assert_allclose(rows[0, 2, :4], [np.sin(2), np.sin(0.02), np.cos(2), np.cos(0.02)])


def test_only_the_cls_token_passes_the_bottleneck():
    module = FmriAutoencoder(16, 16, 8, 16, 1, 1, 2, 2.0, 8)
    x = jax.random.normal(jax.random.key(0), (1, 16, 16))
    variables = jax.jit(module.init)(jax.random.key(1), x)
    output = jax.jit(module.apply)(variables, x)
    assert output.latent.shape == (1, 1, 8)
    decode = jax.jit(partial(module.apply, method="decode"))
    np.testing.assert_allclose(decode(variables, output.latent), output.tokens, atol=1e-6)


def test_encoder_output_shapes_and_unit_embeddings(variables, fmri):
    encoded = apply(variables, fmri)
    assert encoded.condition.shape == (2, 6, 16)
    np.testing.assert_allclose(jnp.linalg.norm(encoded.embedding, axis=-1), 1.0, rtol=1e-5)


def test_clips_do_not_see_each_other(variables, fmri):
    gradient = jax.jit(jax.grad(lambda x: SMALL.apply(variables, x).condition[0].sum()))(fmri)
    gradient = np.asarray(gradient)
    assert np.abs(gradient[0]).max() > 0
    assert np.all(gradient[1] == 0)


def test_subject_axis_is_a_batch_axis(variables, fmri):
    per_subject = np.stack([fmri, fmri[::-1]], axis=1)
    encoded, plain = (np.asarray(apply(variables, x).condition) for x in (per_subject, fmri))
    np.testing.assert_allclose(encoded[0, 1], plain[1], atol=1e-5)


def test_dropout_needs_a_key_and_changes_the_output(variables, fmri):
    noisy = SMALL.clone(dropout=0.5)
    train = jax.jit(partial(noisy.apply, deterministic=False))
    keys = {"dropout": jax.random.key(5)}
    first, again = (np.asarray(train(variables, fmri, rngs=keys).condition) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    quiet = jax.jit(noisy.apply)(variables, fmri)
    assert np.abs(first - quiet.condition).max() > 1e-3
    with pytest.raises(flax.errors.InvalidRngError, match="dropout"):
        jax.eval_shape(train, variables, fmri)


def test_without_alignment_there_are_no_alignment_parameters(fmri):
    plain = SMALL.clone(global_part=False, local_part=False)
    variables = jax.jit(plain.init)(jax.random.key(0), fmri)
    assert "func_align_layer" not in variables["params"]
    assert np.all(jax.jit(plain.apply)(variables, fmri).aligned == fmri)
    assert ravel_pytree(variables)[0].size > 0
