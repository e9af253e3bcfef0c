"""VideoMaeClassifier against transformers' VideoMAEForVideoClassification."""

import jax
import numpy as np
import pytest
import torch
import transformers

from benchmarks.models import randomise
from glfa_jax.convert import pretrained
from glfa_jax.convert.directory import write_tensors
from glfa_jax.convert.mapping import ConversionError, import_params
from glfa_jax.convert.video_mae import TABLE
from glfa_jax.models.video_mae import VideoMaeClassifier
from tests.parity import transformers_models as tools

CLASSES = 5
VIDEO = jax.random.normal(jax.random.key(0), (2, 6, 8, 8, 3))
PIXELS = torch.from_numpy(np.array(VIDEO)).permute(0, 1, 4, 2, 3)


def build(folder, **changes):
    settings = {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "image_size": 8,
        "patch_size": 4,
        "num_frames": 6,
        "tubelet_size": 2,
        "num_labels": CLASSES,
    }
    config = transformers.VideoMAEConfig(**(settings | changes))
    theirs = randomise(transformers.VideoMAEForVideoClassification(config), seed=3)
    config, tensors = tools.tensors_of(theirs, folder)
    model = VideoMaeClassifier.from_config(config)
    shapes = tools.shapes_of(model, VIDEO)
    return theirs, model, import_params(tensors, shapes, TABLE), config, tensors, shapes


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 1},
        {"num_hidden_layers": 3, "hidden_act": "quick_gelu", "tubelet_size": 3},
        {"use_mean_pooling": False},
        {"qv_bias": False},
    ],
)
def test_logits_and_gradients_equal_torch(changes, tmp_path):
    theirs, model, params, *_ = build(tmp_path / "weights", **changes)
    weight = np.random.default_rng(1).standard_normal((2, CLASSES), np.float32)

    def loss(params):
        logits = model.apply({"params": params}, VIDEO)
        return (logits * weight).mean(), logits

    with jax.default_matmul_precision("highest"):
        gradient, logits = jax.jit(jax.grad(loss, has_aux=True))(params)
    expected = theirs(PIXELS).logits
    tools.assert_close(logits, expected, tools.FORWARD)
    (expected * torch.from_numpy(weight)).mean().backward()
    tools.assert_gradients_close(gradient, theirs, TABLE, tmp_path / "gradients")


def test_round_trip_is_exact_and_torch_loads_it(tmp_path):
    theirs, _, params, config, tensors, shapes = build(tmp_path / "theirs")
    # The stored names of the biases, which published files have.
    assert "videomae.encoder.layer.0.attention.attention.q_bias" in tensors
    tools.assert_round_trip(tensors, shapes, TABLE)
    again = tools.reload(
        transformers.VideoMAEForVideoClassification, params, TABLE, config, tmp_path / "ours"
    )
    assert torch.equal(theirs(PIXELS).logits, again(PIXELS).logits)


def test_video_mae_b_has_its_published_size():
    """VideoMAE-B fine-tuned on Kinetics-400, with the bias option under its older name."""
    config = {"qkv_bias": True, "id2label": {str(i): str(i) for i in range(400)}}
    model = VideoMaeClassifier.from_config(config)
    shapes = tools.shapes_of(model, tools.zeros(1, 16, 224, 224, 3))
    with torch.device("meta"):
        theirs = transformers.VideoMAEForVideoClassification(
            transformers.VideoMAEConfig(num_labels=400)
        )
    assert tools.count(shapes) == sum(p.numel() for p in theirs.parameters()) == 86_534_800
    assert "bias" not in shapes["videomae.encoder.layer.0"]["self_attn.k_proj"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hidden_act": "silu"}, "hidden_act"),
        ({"num_channels": 1}, "num_channels"),
        ({"model_type": "vivit"}, "model_type"),
        ({"num_frames": 5}, "tubelet_size"),
    ],
)
def test_unsupported_options_are_rejected_by_name(change, named):
    with pytest.raises(ValueError, match=named):
        VideoMaeClassifier.from_config(change)


def test_a_video_of_a_wrong_length_is_rejected(tmp_path):
    _, model, params, *_ = build(tmp_path)
    with pytest.raises(ValueError, match=r"must be \(6, 8, 8, 3\)"):
        tools.apply(model, params, VIDEO[:, :4])


def test_a_frame_that_makes_no_tubelet_is_not_seen(tmp_path):
    _, model, params, *_ = build(tmp_path / "weights")
    longer = np.concatenate([VIDEO, np.full_like(VIDEO[:, :1], np.nan)], axis=1)
    seen, alone = (model.apply({"params": params}, video) for video in (longer, VIDEO))
    np.testing.assert_allclose(seen, alone, atol=1e-5)


@pytest.mark.parametrize("key_bias", [None, 0.0, 3.0])
def test_biases_that_are_stored_in_the_projections_give_the_same_logits(key_bias, tmp_path):
    """A bias of the keys adds the same to all logits of a query, and cancels in the softmax."""
    theirs, _, _, config, tensors, _ = build(tmp_path / "theirs")
    newer, keys = {}, np.random.default_rng(2).standard_normal(24).astype(np.float32)
    for name, tensor in tensors.items():
        newer[name.replace(".q_bias", ".query.bias").replace(".v_bias", ".value.bias")] = tensor
        if name.endswith(".q_bias") and key_bias is not None:
            newer[name.replace(".q_bias", ".key.bias")] = keys * np.float32(key_bias)
    assert any(name.endswith(".query.bias") for name in newer)
    write_tensors(tmp_path / "ours", newer, config=config, filename="model.safetensors")
    module, variables = pretrained.load("video_mae", tmp_path / "ours")
    logits = tools.apply(module, variables["params"], VIDEO)
    if key_bias:
        add_key_biases(theirs, keys * np.float32(key_bias))
    tools.assert_close(logits, theirs(PIXELS).logits, tools.FORWARD)


def add_key_biases(model, biases) -> None:
    for layer in model.videomae.encoder.layer:
        attention = layer.attention.attention
        attention.key.bias = torch.nn.Parameter(torch.from_numpy(biases))


def test_two_spellings_of_one_bias_are_rejected(tmp_path):
    *_, config, tensors, _ = build(tmp_path / "theirs")
    name = next(name for name in tensors if name.endswith(".q_bias"))
    twice = tensors | {name.replace(".q_bias", ".query.bias"): tensors[name]}
    write_tensors(tmp_path / "ours", twice, config=config, filename="model.safetensors")
    with pytest.raises(ConversionError, match=r"unused: .*\.query\.bias"):
        pretrained.load("video_mae", tmp_path / "ours")
