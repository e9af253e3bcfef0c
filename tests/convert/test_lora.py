"""LoRA weights: every way of naming them means the same, export inverts import, all errors at once.

That a merged update is what PyTorch computes is shown in tests/parity/test_lora.py.
"""

import json
import re
import shutil

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import safe_open
from safetensors.numpy import save_file

from glfa_jax.convert.lora import Lora, adapter_config, export_lora, import_lora
from glfa_jax.convert.lora_file import load_lora, save_lora
from glfa_jax.convert.mapping import ConversionError
from glfa_jax.errors import InputError
from glfa_jax.models.lora import merge

_ATTENTION = "down_blocks.0/attentions.0/transformer_blocks.0/attn1"
# One layer of each kind: linear, 3x3 convolution, 1x1 convolution, convolution over time.
KERNELS = {
    f"{_ATTENTION}/to_q/kernel": (6, 4),
    f"{_ATTENTION}/to_out.0/kernel": (4, 6),
    "down_blocks.0/resnets.0/conv1/kernel": (3, 3, 6, 5),
    "down_blocks.0/resnets.0/conv_shortcut/kernel": (6, 5),
    "down_blocks.0/temp_convs.0/conv1.2/kernel": (3, 5, 5),
    "down_blocks.0/temp_convs.0/conv1.2/bias": (5,),
}
PARAMS = unflatten_dict(
    {
        tuple(path.split("/")): jax.ShapeDtypeStruct(shape, jnp.float32)
        for path, shape in KERNELS.items()
    }
)
Q = _ATTENTION.replace("/", ".") + ".to_q"
OUT = _ATTENTION.replace("/", ".") + ".to_out.0"
CONV = "down_blocks.0.resnets.0.conv1"
SHORTCUT = "down_blocks.0.resnets.0.conv_shortcut"
TIME = "down_blocks.0.temp_convs.0.conv1.2"


def tensors(ranks: dict[str, int] | None = None) -> dict[str, np.ndarray]:
    """Updates of all five layers as PyTorch shapes them, bare names."""
    shapes = {
        Q: ((6,), 4, ()),
        OUT: ((4,), 6, ()),
        CONV: ((6, 3, 3), 5, (1, 1)),
        SHORTCUT: ((6, 1, 1), 5, (1, 1)),
        TIME: ((5, 3, 1, 1), 5, (1, 1, 1)),
    }
    rng = np.random.default_rng(0)
    source = {}
    for name, (inner, out, one_tap) in shapes.items():
        rank = (ranks or {}).get(name, 2)
        down, up = (rank, *inner), (out, rank, *one_tap)
        source[f"{name}.lora_A.weight"] = rng.standard_normal(down, np.float32)
        source[f"{name}.lora_B.weight"] = rng.standard_normal(up, np.float32)
    return source


def renamed(source: dict[str, np.ndarray], *changes: tuple[str, str]) -> dict[str, np.ndarray]:
    new = {}
    for name, tensor in source.items():
        for pattern, replacement in changes:
            name = re.sub(pattern, replacement, name)
        new[name] = tensor
    return new


def kohya(source: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    new = {}
    for name, tensor in source.items():
        module, part = name.rsplit(".lora_", 1)
        part = {"A.weight": "down", "B.weight": "up"}[part]
        new[f"lora_unet_{module.replace('.', '_')}.lora_{part}.weight"] = tensor
    return new


_DOWN_UP = ((r"lora_A", "lora.down"), (r"lora_B", "lora.up"))
LAYOUTS = {
    "diffusers": lambda s: renamed(s, (r"^", "unet.")),
    "peft": lambda s: renamed(s, (r"^", "base_model.model.")),
    "peft around a pipeline": lambda s: renamed(s, (r"^", "base_model.model.unet.")),
    "an adapter's name inside": lambda s: renamed(s, (r"(lora_[AB])", r"\1.default_0")),
    "older diffusers": lambda s: renamed(s, *_DOWN_UP, (r"^", "unet.")),
    "attention processors": lambda s: renamed(
        s,
        *_DOWN_UP,
        (r"attn1\.to_q\.lora", "attn1.processor.to_q_lora"),
        (r"attn1\.to_out\.0\.lora", "attn1.processor.to_out_lora"),
    ),
    "kohya": kohya,
}


def assert_same(ours: Lora, theirs: Lora) -> None:
    assert ours.scale == theirs.scale
    ours, theirs = flatten_dict(ours.tree), flatten_dict(theirs.tree)
    assert ours.keys() == theirs.keys()
    for path, leaf in theirs.items():
        assert (ours[path].dtype, ours[path].shape) == (leaf.dtype, leaf.shape)
        np.testing.assert_array_equal(ours[path], leaf, err_msg=str(path))


def update(lora: Lora, name: str) -> np.ndarray:
    """What a merge adds to one kernel."""
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), PARAMS)
    merged = merge(zeros, lora.tree, scale=lora.scale)
    return np.asarray(flatten_dict(merged, sep="/")[name])


def rejection(call, *parts: str) -> str:
    with pytest.raises(InputError) as error:
        call()
    message = str(error.value)
    for part in parts:
        assert part in message
    return message


def test_the_tree_is_what_merge_takes():
    source = tensors()
    lora = import_lora(source, params=PARAMS)
    assert lora.scale == 1
    down, up = source[f"{Q}.lora_A.weight"], source[f"{Q}.lora_B.weight"]
    name = f"{_ATTENTION}/to_q/kernel"
    np.testing.assert_allclose(update(lora, name), (up @ down).T, rtol=1e-6, atol=1e-6)
    down, up = source[f"{TIME}.lora_A.weight"], source[f"{TIME}.lora_B.weight"]
    wanted = np.einsum("rik,or->kio", down[..., 0, 0], up[..., 0, 0, 0])
    name = "down_blocks.0/temp_convs.0/conv1.2/kernel"
    np.testing.assert_allclose(update(lora, name), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_means_the_same(layout):
    source = tensors({CONV: 3})
    assert_same(
        import_lora(LAYOUTS[layout](source), params=PARAMS), import_lora(source, params=PARAMS)
    )


@pytest.mark.parametrize("prefix", ["unet.", "base_model.model.", ""])
def test_export_inverts_import(prefix):
    source = renamed(tensors({CONV: 3}), (r"^", prefix))
    exported = export_lora(import_lora(source, params=PARAMS), prefix=prefix)
    assert exported.keys() == source.keys()
    for name, tensor in source.items():
        assert exported[name].dtype == tensor.dtype
        np.testing.assert_array_equal(exported[name], tensor, err_msg=name)


@pytest.mark.parametrize("scale", [1.0, 0.1, 10 / 3, 16 / 24, 7.0, 0.0])
def test_import_inverts_export_whatever_the_ranks(scale):
    scale = float(f"{scale:.15g}")
    tree = import_lora(tensors({CONV: 3, TIME: 5, OUT: 7}), params=PARAMS).tree
    lora = Lora(tree, scale)
    again = import_lora(
        export_lora(lora, prefix="unet."), params=PARAMS, config=adapter_config(lora)
    )
    assert_same(again, lora)


def test_part_of_the_layers_is_enough():
    source = {name: tensor for name, tensor in tensors().items() if name.startswith(Q)}
    lora = import_lora(source, params=PARAMS)
    assert set(flatten_dict(lora.tree, sep="/")) == {
        f"{_ATTENTION}/to_q/kernel/{part}" for part in ("down", "up")
    }


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_becomes_float32(dtype):
    source = {name: tensor.astype(dtype) for name, tensor in tensors().items()}
    widened = {name: tensor.astype(np.float32) for name, tensor in source.items()}
    assert_same(import_lora(source, params=PARAMS), import_lora(widened, params=PARAMS))


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"r": 2, "lora_alpha": 8}, 4.0),
        ({"unet.r": 2, "unet.lora_alpha": 1, "text_encoder.r": 9}, 0.5),
        ({"r": 2, "lora_alpha": 2, "use_rslora": True}, 1.4142135623731),
        ({"r": 7, "rank_pattern": {"down_blocks": 3, ".*": 2}, "lora_alpha": 2}, 1.0),
        ({"r": 2, "lora_alpha": 9, "alpha_pattern": {r"(to_q|0|conv.*|conv1\.2)": 6}}, 3.0),
    ],
)
def test_scale_of_a_configuration(config, scale):
    config = {"peft_type": "LORA", "target_modules": ["to_q"], "use_dora": False, **config}
    lora = import_lora(tensors(), params=PARAMS, config=config)
    assert lora.scale == pytest.approx(scale, rel=1e-12)
    assert_same(Lora(lora.tree, 1.0), import_lora(tensors(), params=PARAMS))


@pytest.mark.parametrize("name", [".alpha", ".lora.alpha"])
def test_alpha_tensors(name):
    alphas = {f"{module}{name}": np.array(5.0, np.float32) for module in (Q, OUT, CONV, TIME)}
    alphas |= {f"{SHORTCUT}{name}": np.array([5], ml_dtypes.bfloat16)}
    assert import_lora(tensors() | alphas, params=PARAMS).scale == 2.5


def test_alpha_of_an_attention_processor():
    source = LAYOUTS["attention processors"](tensors())
    base = Q.removesuffix("to_q")
    source |= {
        f"{base}processor.to_q_lora.alpha": np.float32(4),
        f"{base}processor.to_out_lora.alpha": np.float32(4),
    }
    source |= {f"{module}.alpha": np.float32(4) for module in (CONV, SHORTCUT, TIME)}
    assert_same(
        import_lora(source, params=PARAMS), Lora(import_lora(tensors(), params=PARAMS).tree, 2.0)
    )


def test_scales_that_differ_go_into_up():
    source = tensors({CONV: 4})
    plain = flatten_dict(import_lora(source, params=PARAMS).tree, sep="/")
    mixed = import_lora(
        source, params=PARAMS, config={"r": 2, "lora_alpha": 3, "rank_pattern": {CONV: 4}}
    )
    assert mixed.scale == 1
    for name, leaf in flatten_dict(mixed.tree, sep="/").items():
        scale = 1 if name.endswith("down") else 0.75 if "resnets.0/conv1/" in name else 1.5
        np.testing.assert_array_equal(leaf, plain[name] * np.float32(scale), err_msg=name)


def test_all_that_does_not_fit_is_reported_together():
    source = tensors()
    del source[f"{Q}.lora_B.weight"]
    source[f"{TIME}.lora_B.weight"] = source[f"{TIME}.lora_B.weight"].astype(np.int8)
    source[f"{OUT}.lora_A.weight"] = np.zeros((2, 5), np.float32)
    source[f"{OUT}.lora_B.weight"] = np.zeros((6, 2, 1), np.float32)
    source[f"{SHORTCUT}.lora_A.weight"] = np.zeros((3, 6, 1, 1), np.float32)
    source[f"unet.{TIME}.lora_A.other.weight"] = source[f"{TIME}.lora_A.weight"]
    source["up_blocks.7.conv.lora_A.weight"] = np.zeros((2, 2), np.float32)
    source["down_blocks.0.norm.weight"] = np.zeros(2, np.float32)
    source[f"{CONV}.alpha"] = np.zeros(2, np.float32)
    message = rejection(lambda: import_lora(source, params=PARAMS))
    first, *lines = message.splitlines()
    assert first == "LoRA: 9 things do not fit:"
    assert {line.strip() for line in lines} == {
        f"missing: up of {Q}",
        f"shape: down of {OUT} is (2, 5), expected (rank, 4)",
        f"shape: up of {OUT} is (6, 2, 1), expected (6, rank)",
        f"shape: alpha of {CONV} is (2,), expected ()",
        f"dtype: up of {TIME} is int8, expected floating-point numbers",
        f"rank: {SHORTCUT} has 3 in down and 2 in up",
        f"given twice: down of {TIME}, the second time as unet.{TIME}.lora_A.other.weight",
        "unknown module: up_blocks.7.conv.lora_A.weight",
        "unused: down_blocks.0.norm.weight",
    }


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("text_encoder.text_model.encoder.layers.0.fc1.lora_A.weight", "of a text encoder"),
        ("base_model.model.text_encoder.fc1.lora_A.weight", "of a text encoder"),
        ("lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", "of a text encoder"),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha", "of a text encoder"),
        (f"unet.{Q}.lora_magnitude_vector", "DoRA"),
        (f"unet.{Q}.lora_magnitude_vector.default.weight", "DoRA"),
        ("lora_unet_x.dora_scale", "DoRA"),
        ("lora_unet_x.hada_w1_a", "LoHa"),
        (f"{Q}.lokr_w1", "LoKr"),
        ("lora_unet_x.lora_mid.weight", "LoCon with a core tensor"),
        (f"{Q}.lora_B.bias", "biases"),
        (f"{Q}.lora.up.bias", "biases"),
        ("lora_unet_x.diff", "whole differences"),
        ("unet.x.lora_embedding_A", "embeddings"),
    ],
)
def test_what_is_not_supported_is_named(name, kind):
    rejection(
        lambda: import_lora(tensors() | {name: np.zeros(2, np.float32)}, params=PARAMS),
        f"LoRA: 1 things do not fit:\n  not supported: {kind}, 1 tensors such as {name}",
    )


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"lora_alpha": None}, "adapter configuration: lora_alpha is None, must be a finite"),
        ({"r": "2"}, "adapter configuration: r is '2', must be a finite number"),
        ({"r": 4}, f"rank: {Q} has 2, the adapter configuration says 4"),
        ({"rank_pattern": {"^" + Q: 3}}, f"rank: {Q} has 2, the adapter configuration says 3"),
        ({"rank_pattern": [3]}, "rank_pattern is [3], must map patterns to numbers"),
        ({"alpha_pattern": {"(": 3}}, "alpha_pattern '(' is no regular expression"),
        ({"alpha_pattern": {"(" * 9999: 3}}, "is no regular expression (maximum recursion"),
        (
            {"rank_pattern": {"a{99999999999}": 3}},
            "is no regular expression (the repetition number",
        ),
        ({"rank_pattern": {"(a+)+$": 3}}, "too intricate a regular expression"),
        ({"alpha_pattern": {"to_q": True}}, "alpha_pattern 'to_q' is True, must be a finite"),
        ({"use_dora": True}, "adapter configuration: use_dora True is not supported"),
        ({"peft_type": "LOHA"}, "adapter configuration: peft_type 'LOHA' is not supported"),
        ({"bias": "lora_only"}, "adapter configuration: bias 'lora_only' is not supported"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa' is not supported"),
        ({"modules_to_save": ["conv_in"]}, "modules_to_save ['conv_in'] is not supported"),
        ({"invented": 1}, "adapter configuration: invented 1 is not supported"),
    ],
)
def test_a_configuration_that_cannot_be_followed_is_rejected(config, sentence):
    config = {"r": 2, "lora_alpha": 2, **config}
    rejection(lambda: import_lora(tensors(), params=PARAMS, config=config), sentence)


def test_two_alphas_must_agree():
    source = tensors() | {f"{Q}.alpha": np.float32(4)}
    config = {"r": 2, "lora_alpha": 2, "alpha_pattern": {Q: 4}}
    import_lora(source, params=PARAMS, config=config)
    del config["alpha_pattern"]
    rejection(
        lambda: import_lora(source, params=PARAMS, config=config),
        f"alpha: {Q} has 4.0, the adapter configuration says 2",
    )


def test_nothing_at_all_is_rejected():
    rejection(lambda: import_lora({}, params=PARAMS), "no LoRA weights are there at all")
    model = {f"{name}.weight": np.zeros(2, np.float32) for name in (Q, OUT, CONV, TIME)}
    said = f"no LoRA weights are there at all, the tensors are {OUT}.weight"
    message = rejection(lambda: import_lora(model, params=PARAMS), said)
    assert len(message.splitlines()) == 2


@pytest.mark.parametrize(
    ("layout", "files"),
    [
        ("diffusers", {"pytorch_lora_weights.safetensors", "SHA256SUMS"}),
        ("peft", {"adapter_model.safetensors", "adapter_config.json", "SHA256SUMS"}),
    ],
)
def test_what_is_saved_is_read(tmp_path, layout, files):
    lora = Lora(import_lora(tensors({CONV: 3}), params=PARAMS).tree, 0.1)
    save_lora(tmp_path / "new", lora, layout=layout)
    assert {entry.name for entry in (tmp_path / "new").iterdir()} == files
    assert_same(load_lora(tmp_path / "new", params=PARAMS), lora)
    assert_same(load_lora(next((tmp_path / "new").glob("*.safetensors")), params=PARAMS), lora)


def test_a_folder_of_peft(tmp_path):
    source = LAYOUTS["peft"](tensors())
    save_file(source, tmp_path / "adapter_model.safetensors")
    assert load_lora(tmp_path, params=PARAMS).scale == 1
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 6}))
    assert load_lora(tmp_path, params=PARAMS).scale == 3
    (tmp_path / "adapter_config.json").write_text("{")
    rejection(lambda: load_lora(tmp_path, params=PARAMS), "adapter_config.json: not valid JSON")


@pytest.mark.parametrize(
    "metadata",
    [{"r": "2", "lora_alpha": "6"}, {"lora_adapter_metadata": '{"unet.r": 2, "lora_alpha": 6}'}],
)
def test_scale_in_the_metadata_of_a_file(tmp_path, metadata):
    save_file(tensors(), tmp_path / "any.safetensors", metadata={"format": "pt", **metadata})
    assert load_lora(tmp_path / "any.safetensors", params=PARAMS).scale == 3


def test_files_that_cannot_be_read_are_named(tmp_path):
    rejection(lambda: load_lora(tmp_path, params=PARAMS), f"{tmp_path}: must hold one of")
    lora = import_lora(tensors(), params=PARAMS)
    save_lora(tmp_path / "both", lora, layout="diffusers")
    (file,) = (tmp_path / "both").glob("*.safetensors")
    shutil.copy(file, tmp_path / "both" / "adapter_model.safetensors")
    rejection(lambda: load_lora(tmp_path / "both", params=PARAMS), "both: must hold one of")
    path = tmp_path / "any.safetensors"
    rejection(lambda: load_lora(path, params=PARAMS), f"{path}: no such file")
    for content in ("[", "[]", "[" * 99_999):
        save_file(tensors(), path, metadata={"lora_adapter_metadata": content})
        rejection(lambda: load_lora(path, params=PARAMS), f"{path}: metadata")
    save_file(tensors() | {"x": np.zeros(1)}, path)
    with pytest.raises(ConversionError, match=re.escape(f"{path}: LoRA: 1 things")):
        load_lora(path, params=PARAMS)


_WAN = {
    "patch_embedding": ((6, 4, 1, 2, 2), "patch_embedding"),
    "blocks.0.attn1.to_q": ((6, 6), "blocks.0.self_attn.q"),
    "blocks.0.attn2.to_out.0": ((6, 6), "blocks.0.cross_attn.o"),
    "blocks.10.ffn.net.2": ((6, 5), "blocks.10.ffn.2"),
    "condition_embedder.text_embedder.linear_1": ((6, 3), "text_embedding.0"),
    "condition_embedder.time_proj": ((36, 6), "time_projection.1"),
    "proj_out": ((8, 6), "head.head"),
}


def _wan_params() -> dict:
    paths = {
        ("patch_embedding", "kernel"): (1, 2, 2, 4, 6),
        ("blocks.0", "attn1", "to_q", "kernel"): (6, 6),
        ("blocks.0", "attn2", "to_out.0", "kernel"): (6, 6),
        ("blocks.10", "ffn.net.2", "kernel"): (5, 6),
        ("condition_embedder.text_embedder.linear_1", "kernel"): (3, 6),
        ("condition_embedder.time_proj", "kernel"): (6, 36),
        ("proj_out", "kernel"): (6, 8),
    }
    shapes = {path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in paths.items()}
    return unflatten_dict(shapes)


def _wan_tensors() -> dict[str, np.ndarray]:
    rng, source = np.random.default_rng(0), {}
    for name, ((out, *inner), _) in _WAN.items():
        up = (out, 2, *[1] * (len(inner) - 1))
        source[f"{name}.lora_A.weight"] = rng.standard_normal((2, *inner), np.float32)
        source[f"{name}.lora_B.weight"] = rng.standard_normal(up, np.float32)
    return source


def _by_their_authors(source: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    parts = (name.split(".lora_") for name in source)
    names = (f"diffusion_model.{_WAN[layer][1]}.lora_{part}" for layer, part in parts)
    return dict(zip(names, source.values(), strict=True))


@pytest.mark.parametrize(
    "layout",
    [
        lambda s: renamed(s, (r"^", "transformer.")),
        lambda s: renamed(s, (r"^", "base_model.model.")),
        lambda s: renamed(s, (r"^", "base_model.model."), (r"(lora_[AB])", r"\1.default")),
        _by_their_authors,
        lambda s: kohya(renamed(_by_their_authors(s), (r"^diffusion_model\.", ""))),
        kohya,
    ],
    ids=["diffusers", "peft", "an adapter's name", "authors", "musubi-tuner", "kohya"],
)
def test_every_layout_of_wan_means_the_same(layout):
    wanted = import_lora(_wan_tensors(), params=_wan_params(), kind="wan")
    assert wanted.modules == list(_WAN)
    assert_same(import_lora(layout(_wan_tensors()), params=_wan_params(), kind="wan"), wanted)


@pytest.mark.parametrize("layout", ["diffusers", "peft"])
def test_what_is_saved_for_wan_is_read(tmp_path, layout):
    tree = import_lora(_wan_tensors(), params=_wan_params(), kind="wan").tree
    save_lora(tmp_path / "new", Lora(tree, 0.5, "wan"), layout=layout)
    again = load_lora(tmp_path / "new", params=_wan_params(), kind="wan")
    assert_same(again, Lora(tree, 0.5))
    (file,) = (tmp_path / "new").glob("*.safetensors")
    prefix = {"diffusers": "transformer.", "peft": "base_model.model."}[layout]
    with safe_open(file, framework="numpy") as held:
        assert all(name.startswith(prefix) for name in held.keys())  # noqa: SIM118


def test_a_lora_of_another_kind_is_rejected():
    rejection(
        lambda: import_lora(tensors(), params=_wan_params(), kind="wan"),
        f"unknown module: {Q}.lora_A.weight",
    )
    rejection(
        lambda: import_lora(renamed(_wan_tensors(), (r"^", "transformer.")), params=PARAMS),
        "unknown module: transformer.patch_embedding.lora_A.weight",
    )
