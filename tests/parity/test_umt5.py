"""UMT5Text against transformers' UMT5EncoderModel: distances, outputs, all gradients, names."""

import jax
import numpy as np
import pytest
import torch
from transformers import UMT5Config, UMT5EncoderModel
from transformers.models.umt5.modeling_umt5 import UMT5Attention

from benchmarks import models
from glfa_jax.convert.mapping import ConversionError, import_params
from glfa_jax.convert.umt5 import TABLE, current_names
from glfa_jax.models.umt5 import UMT5Text, distance_buckets
from tests.parity import transformers_models as common

SMALL = models.small_umt5(16, heads=2, inner=12, layers=2)
# Heads whose widths do not add up to the model's, and the published buckets.
OTHER = SMALL | {"d_kv": 5, "num_heads": 3, "relative_attention_num_buckets": 32, "num_layers": 1}
OTHER |= {"relative_attention_max_distance": 128, "layer_norm_epsilon": 1e-3}


def _pair(config: dict, folder, *, seed: int) -> tuple[UMT5EncoderModel, UMT5Text, dict]:
    theirs = models.randomise(models.torch_model("umt5_text", config), seed=seed)
    stored, tensors = common.tensors_of(theirs, folder)
    ours = UMT5Text.from_config(stored)
    target = common.shapes_of(ours, common.zeros(1, 1, dtype=int))
    common.assert_round_trip(tensors, target, TABLE)
    return theirs, ours, import_params(tensors, target, TABLE)


@pytest.mark.parametrize(("count", "farthest"), [(32, 128), (8, 6), (4, 3), (10, 20), (33, 128)])
def test_buckets_of_distances(count: int, farthest: int) -> None:
    config = UMT5Config(
        relative_attention_num_buckets=count, relative_attention_max_distance=farthest
    )
    layer = UMT5Attention(config, has_relative_attention_bias=True, layer_idx=0)
    distance = torch.arange(600)[None] - torch.arange(600)[:, None]
    wanted = layer._relative_position_bucket(distance).numpy()
    got = distance_buckets(600, count=count, max_distance=farthest)
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(
    ("config", "length"), [(SMALL, 12), (OTHER, 40)], ids=["small", "as published"]
)
def test_output_and_gradients(config: dict, length: int, tmp_path) -> None:
    theirs, ours, params = _pair(config, tmp_path / "a", seed=0)
    rng = np.random.default_rng(1)
    tokens = rng.integers(1, 20, (3, length)).astype(np.int32)
    tokens[1, 5:] = tokens[2, 1:] = 0
    mask = torch.from_numpy(tokens != 0)
    weight = rng.standard_normal((3, length, 16), np.float32)

    hidden = theirs(torch.from_numpy(tokens).long(), attention_mask=mask.long()).last_hidden_state
    # As WanPipeline fills up what it has cut at a caption's end.
    wanted = torch.stack([row * m[:, None] for row, m in zip(hidden, mask, strict=True)])
    (wanted * torch.from_numpy(weight)).sum().backward()

    def loss(params: dict) -> tuple:
        hidden = ours.apply({"params": params}, tokens).hidden
        return (hidden * weight).sum(), hidden

    with jax.default_matmul_precision("highest"):
        gradients, got = jax.jit(jax.grad(loss, has_aux=True))(params)
    common.assert_close(got, wanted, common.FORWARD)
    assert not np.asarray(got)[2, 1:].any()
    common.assert_gradients_close(gradients, theirs, TABLE, tmp_path / "b")


def test_embeddings_may_be_stored_under_either_name(tmp_path) -> None:
    _, _, params = _pair(SMALL, tmp_path, seed=0)
    _, tensors = common.read_config(tmp_path), common.read_tensors(tmp_path)
    target = jax.tree.map(lambda x: x, params)
    other = {**tensors, "encoder.embed_tokens.weight": tensors["shared.weight"]}
    both = import_params(current_names(other), target, TABLE)
    del other["shared.weight"]
    alone = import_params(current_names(other), target, TABLE)
    for found in (both, alone):
        np.testing.assert_array_equal(found["shared"]["embedding"], params["shared"]["embedding"])
    with pytest.raises(ConversionError, match=r"missing: shared\.weight"):
        import_params({k: v for k, v in tensors.items() if k != "shared.weight"}, target, TABLE)


def test_the_published_encoder_has_these_tensors() -> None:
    config = {"d_ff": 10240, "d_model": 4096, "num_heads": 64, "num_layers": 24}
    config |= {"vocab_size": 256384}
    with torch.device("meta"):
        theirs = models.torch_model("umt5_text", config)
    shapes = models.shapes_of("umt5_text", config)
    assert common.count(shapes) == sum(parameter.numel() for parameter in theirs.parameters())
    assert common.count(shapes) == 5_680_910_336
