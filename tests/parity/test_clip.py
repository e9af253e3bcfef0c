"""CLIP against transformers: CLIPTextModel and CLIPModel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from benchmarks.models import randomise
from glfa_jax.convert.clip_model import TABLE, TEXT_TABLE, TEXT_TABLE_BARE, text_table
from glfa_jax.convert.directory import read_tensors
from glfa_jax.convert.mapping import import_params
from glfa_jax.models.clip_model import Clip, ClipText
from tests.parity import transformers_models as tools

LENGTH, VOCABULARY = 9, 50
START, END = VOCABULARY - 2, VOCABULARY - 1
# A full caption, a padded one, an empty one; the end token pads, as CLIP's does.
TOKENS = jnp.array(
    [
        [START, 4, 7, 30, 2, 11, 19, 5, END],
        [START, 8, 3, END, END, END, END, END, END],
        [START, END, END, END, END, END, END, END, END],
    ]
)


def text_config(**changes) -> transformers.CLIPTextConfig:
    settings = {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": LENGTH,
        "bos_token_id": START,
        "eos_token_id": END,
    }
    return transformers.CLIPTextConfig(**(settings | changes))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A random CLIPModel, our model with its weights, and a pair of inputs."""
    text = text_config(hidden_act="gelu").to_dict()
    vision = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": 12,
        "patch_size": 4,
        "hidden_act": "gelu",
    }
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=20)
    theirs = randomise(transformers.CLIPModel(config), seed=1)
    config, tensors = tools.tensors_of(theirs, tmp_path_factory.mktemp("clip"))
    ours = Clip.from_config(config)
    image = jax.random.normal(jax.random.key(0), (3, 12, 12, 3))
    shapes = tools.shapes_of(ours, image, tokens=TOKENS)
    return theirs, ours, import_params(tensors, shapes, TABLE), config, tensors, shapes, image


def torch_image(image: jax.Array) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(0, 3, 1, 2)


def torch_tokens() -> torch.Tensor:
    return torch.from_numpy(np.array(TOKENS))


@pytest.mark.parametrize(
    ("depth", "act", "end"), [(1, "quick_gelu", END), (3, "gelu", END), (2, "gelu", 2)]
)
def test_text_encoder_equals_torch(depth, act, end, tmp_path):
    config = text_config(num_hidden_layers=depth, hidden_act=act, eos_token_id=end)
    theirs = randomise(transformers.CLIPTextModel(config), seed=depth)
    config, tensors = tools.tensors_of(theirs, tmp_path)
    assert text_table(tensors) is TEXT_TABLE_BARE
    model = ClipText.from_config(config)
    params = import_params(tensors, tools.shapes_of(model, TOKENS), TEXT_TABLE_BARE)
    ours = tools.apply(model, params, TOKENS)
    expected = theirs(torch_tokens())
    tools.assert_close(ours.hidden, expected.last_hidden_state, tools.FORWARD)
    tools.assert_close(ours.pooled, expected.pooler_output, tools.FORWARD)
    # The pooled token never sees the padding, so torch's padding mask changes nothing.
    masked = theirs(torch_tokens(), attention_mask=torch.from_numpy(padding_mask()))
    tools.assert_close(ours.pooled, masked.pooler_output, tools.FORWARD)


def padding_mask() -> np.ndarray:
    ends = np.cumsum(np.array(TOKENS) == END, axis=1)
    return (ends <= 1).astype(np.int64)


def test_text_gradients_equal_torch(tmp_path):
    theirs = randomise(transformers.CLIPTextModel(text_config()), seed=5)
    config, tensors = tools.tensors_of(theirs, tmp_path / "weights")
    model = ClipText.from_config(config)
    params = import_params(tensors, tools.shapes_of(model, TOKENS), TEXT_TABLE_BARE)
    weight = np.random.default_rng(1).standard_normal((3, LENGTH, 24), np.float32)

    def loss(params):
        output = model.apply({"params": params}, TOKENS)
        return (output.hidden * weight).mean() + (output.pooled**2).mean()

    with jax.default_matmul_precision("highest"):
        ours = jax.jit(jax.grad(loss))(params)
    output = theirs(torch_tokens())
    hidden, pooled = output.last_hidden_state, output.pooler_output
    ((hidden * torch.from_numpy(weight)).mean() + (pooled**2).mean()).backward()
    tools.assert_gradients_close(ours, theirs, TEXT_TABLE_BARE, tmp_path / "gradients")


def test_text_hidden_is_causal(tmp_path):
    theirs = randomise(transformers.CLIPTextModel(text_config()), seed=6)
    config, tensors = tools.tensors_of(theirs, tmp_path)
    model = ClipText.from_config(config)
    params = import_params(tensors, tools.shapes_of(model, TOKENS), TEXT_TABLE_BARE)
    changed = TOKENS.at[:, 5:].set(1)
    before, after = (tools.apply(model, params, t).hidden for t in (TOKENS, changed))
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert not np.allclose(before[:, 5:], after[:, 5:])


def test_both_layouts_of_a_text_encoder_are_read_and_written(tmp_path):
    theirs = randomise(transformers.CLIPTextModel(text_config()), seed=7)
    config, tensors = tools.tensors_of(theirs, tmp_path / "bare")
    model = ClipText.from_config(config)
    shapes = tools.shapes_of(model, TOKENS)
    params = import_params(tensors, shapes, TEXT_TABLE_BARE)
    tools.assert_round_trip(tensors, shapes, TEXT_TABLE_BARE)
    again = tools.reload(
        transformers.CLIPTextModel, params, TEXT_TABLE, config, tmp_path / "prefixed"
    )
    tokens = torch_tokens()
    assert torch.equal(theirs(tokens).last_hidden_state, again(tokens).last_hidden_state)
    prefixed = read_tensors(tmp_path / "prefixed")
    assert text_table(prefixed) is TEXT_TABLE
    tools.assert_round_trip(prefixed, shapes, TEXT_TABLE)


def test_clip_equals_torch(clip):
    theirs, ours, params, *_, image = clip

    @jax.jit
    def forward(params):
        variables = {"params": params}
        features = ours.apply(variables, image, method="image_features")
        words = ours.apply(variables, TOKENS, method="text_features")
        return ours.apply(variables, image, tokens=TOKENS), features, words

    with jax.default_matmul_precision("highest"):
        output, features, words = forward(params)
    tokens, pixels = torch_tokens(), torch_image(image)
    expected = theirs(input_ids=tokens, pixel_values=pixels)
    tools.assert_close(output.image, expected.image_embeds, tools.FORWARD)
    tools.assert_close(output.text, expected.text_embeds, tools.FORWARD)
    logits = jnp.exp(output.logit_scale) * output.image @ output.text.T
    tools.assert_close(logits, expected.logits_per_image, tools.FORWARD)
    projected = theirs.visual_projection(theirs.vision_model(pixels).pooler_output)
    tools.assert_close(features, projected, tools.FORWARD)
    projected = theirs.text_projection(theirs.text_model(tokens).pooler_output)
    tools.assert_close(words, projected, tools.FORWARD)


def test_clip_contrastive_gradients_equal_torch(clip, tmp_path):
    _, ours, params, config, *_, image = clip

    def loss(params):
        output = ours.apply({"params": params}, image, tokens=TOKENS)
        logits = jnp.exp(output.logit_scale) * output.text @ output.image.T
        rows, columns = (jnp.diag(jax.nn.log_softmax(logits, axis)).mean() for axis in (0, 1))
        return -(rows + columns) / 2

    with jax.default_matmul_precision("highest"):
        value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    fresh = tools.reload(transformers.CLIPModel, params, TABLE, config, tmp_path / "fresh")
    expected = fresh(
        input_ids=torch_tokens(), pixel_values=torch_image(image), return_loss=True
    ).loss
    tools.assert_close(value, expected, tools.FORWARD)
    expected.backward()
    tools.assert_gradients_close(gradient, fresh, TABLE, tmp_path / "gradients")


def test_clip_round_trip_is_exact_and_torch_loads_it(clip, tmp_path):
    theirs, _, params, config, tensors, shapes, image = clip
    tools.assert_round_trip(tensors, shapes, TABLE)
    halves = {name: value.astype(np.float16) for name, value in tensors.items()}
    tools.assert_round_trip(halves, shapes, TABLE)
    again = tools.reload(transformers.CLIPModel, params, TABLE, config, tmp_path)
    inputs = {"input_ids": torch_tokens(), "pixel_values": torch_image(image)}
    assert torch.equal(theirs(**inputs).logits_per_image, again(**inputs).logits_per_image)


def test_dropout_acts_in_training_only(clip):
    theirs, _, params, config, *_, image = clip
    noisy = Clip.from_config(config, dropout=0.5)
    quiet = tools.apply(noisy, params, image, tokens=TOKENS)
    expected = theirs(input_ids=torch_tokens(), pixel_values=torch_image(image))
    tools.assert_close(quiet.image, expected.image_embeds, tools.FORWARD)
    rngs = {"dropout": jax.random.key(0)}
    output = tools.apply(noisy, params, image, tokens=TOKENS, deterministic=False, rngs=rngs)
    assert not np.allclose(output.image, quiet.image)
    assert not np.allclose(output.text, quiet.text)


def test_vit_h_has_its_published_size():
    """OpenCLIP ViT-H/14 laion2b; its config.json leaves out what has transformers' default."""
    text = {
        "hidden_act": "gelu",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
    }
    vision = {
        "hidden_act": "gelu",
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_attention_heads": 16,
        "num_hidden_layers": 32,
        "patch_size": 14,
    }
    config = {"projection_dim": 1024, "text_config": text, "vision_config": vision}
    model = Clip.from_config(config)
    image, tokens = tools.zeros(1, 224, 224, 3), tools.zeros(1, 77, dtype=jnp.int32)
    shapes = tools.shapes_of(model, image, tokens=tokens)
    assert tools.count(shapes) == 986_109_441
    with torch.device("meta"):
        theirs = transformers.CLIPModel(transformers.CLIPConfig(**config))
    assert tools.count(shapes) == sum(p.numel() for p in theirs.parameters())
    params = {"params": shapes}
    output = jax.eval_shape(lambda p: model.apply(p, image, tokens=tokens), params)
    assert (output.image.shape, output.text.shape) == ((1, 1024), (1, 1024))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "siglip"}, "model_type"),
        ({"text_config": {"hidden_act": "relu"}}, "hidden_act"),
        ({"text_config": {"eos_token_id": [1, 2]}}, "eos_token_id"),
        ({"vision_config": {"num_channels": 1}}, "num_channels"),
        ({"vision_config": {"image_size": [224, 112]}}, "image_size"),
        ({"vision_config": {"hidden_size": 100}}, "hidden_size"),
    ],
)
def test_unsupported_options_are_rejected_by_name(change, named):
    with pytest.raises(ValueError, match=named):
        Clip.from_config(change)


def test_inputs_of_a_wrong_size_are_rejected(clip):
    _, ours, params, *_, image = clip
    with pytest.raises(ValueError, match="at most 9"):
        ours.apply({"params": params}, jnp.zeros((1, 10), jnp.int32), method="text_features")
    with pytest.raises(ValueError, match=r"must be \(12, 12, 3\)"):
        ours.apply({"params": params}, image[:, :8], method="image_features")
