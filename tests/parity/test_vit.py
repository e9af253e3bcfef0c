"""VitClassifier against transformers' ViTForImageClassification."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from benchmarks.models import randomise
from glfa_jax.convert.mapping import import_params
from glfa_jax.convert.vit import TABLE
from glfa_jax.models.vit_classifier import VitClassifier
from tests.parity import transformers_models as tools

CLASSES = 7
IMAGE = jax.random.normal(jax.random.key(0), (2, 12, 12, 3))
PIXELS = torch.from_numpy(np.array(IMAGE)).permute(0, 3, 1, 2)


def build(folder, **changes):
    settings = {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "image_size": 12,
        "patch_size": 4,
        "num_labels": CLASSES,
    }
    config = transformers.ViTConfig(**(settings | changes))
    theirs = randomise(transformers.ViTForImageClassification(config), seed=2)
    config, tensors = tools.tensors_of(theirs, folder)
    model = VitClassifier.from_config(config)
    shapes = tools.shapes_of(model, IMAGE)
    return theirs, model, import_params(tensors, shapes, TABLE), config, tensors, shapes


@pytest.mark.parametrize(
    ("depth", "act", "bias"), [(1, "gelu", True), (3, "quick_gelu", True), (2, "gelu", False)]
)
def test_logits_and_gradients_equal_torch(depth, act, bias, tmp_path):
    theirs, model, params, *_ = build(
        tmp_path / "weights", num_hidden_layers=depth, hidden_act=act, qkv_bias=bias
    )
    weight = np.random.default_rng(1).standard_normal((2, CLASSES), np.float32)

    def loss(params):
        logits = model.apply({"params": params}, IMAGE)
        return (logits * weight).mean(), logits

    with jax.default_matmul_precision("highest"):
        gradient, logits = jax.jit(jax.grad(loss, has_aux=True))(params)
    expected = theirs(PIXELS).logits
    tools.assert_close(logits, expected, tools.FORWARD)
    (expected * torch.from_numpy(weight)).mean().backward()
    tools.assert_gradients_close(gradient, theirs, TABLE, tmp_path / "gradients")


def test_round_trip_is_exact_and_torch_loads_it(tmp_path):
    theirs, _, params, config, tensors, shapes = build(tmp_path / "theirs")
    tools.assert_round_trip(tensors, shapes, TABLE)
    again = tools.reload(
        transformers.ViTForImageClassification, params, TABLE, config, tmp_path / "ours"
    )
    assert torch.equal(theirs(PIXELS).logits, again(PIXELS).logits)


def test_bfloat16_stays_near_and_gives_float32_logits(tmp_path):
    _, model, params, config, *_ = build(tmp_path)
    exact = tools.apply(model, params, IMAGE)
    half = tools.apply(VitClassifier.from_config(config, dtype=jnp.bfloat16), params, IMAGE)
    assert half.dtype == jnp.float32
    assert np.abs(half - exact).max() <= 0.05 * np.abs(exact).max()


def test_vit_b_has_its_published_size():
    model = VitClassifier.from_config({"id2label": {str(i): str(i) for i in range(1000)}})
    shapes = tools.shapes_of(model, tools.zeros(1, 224, 224, 3))
    assert tools.count(shapes) == 86_567_656


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hidden_act": "silu"}, "hidden_act"),
        ({"num_channels": 1}, "num_channels"),
        ({"model_type": "deit"}, "model_type"),
        ({"patch_size": [16, 8]}, "patch_size"),
    ],
)
def test_unsupported_options_are_rejected_by_name(change, named):
    with pytest.raises(ValueError, match=named):
        VitClassifier.from_config(change)
