"""Model folders: what is saved loads bit for bit; what does not fit is one error naming it."""

import json
import os
import shutil
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks.models import TINY, random_params, shapes_of
from examples.simulated.tokenizer import write_tokenizer
from glfa_jax.convert import pretrained, vae
from glfa_jax.convert.directory import read_tensors, write_tensors
from glfa_jax.errors import InputError

_AUTOENCODER = pretrained.build("fmri_autoencoder", TINY["fmri_autoencoder"])
_ENCODER = pretrained.build("fmri_encoder", TINY["fmri_encoder"]).clone(dropout=0.3)
_LEA = pretrained.build("lea", TINY["lea"])
_LINEAR = _ENCODER.clone(head="linear", global_part=False, dropout=0.0)
CONFIGS = TINY | {
    "fmri_autoencoder": pretrained.own_config(_AUTOENCODER),
    "fmri_encoder": pretrained.own_config(_ENCODER),
    "lea": pretrained.own_config(_LEA),
    "fmri_encoder, linear head": pretrained.own_config(_LINEAR),
}


def kind_of(name: str) -> str:
    return name.partition(",")[0]


@cache
def params_of(name: str) -> dict:
    """Random parameters of the right shapes."""
    return random_params(shapes_of(kind_of(name), CONFIGS[name]))


def write(name: str, folder: Path, **options) -> dict:
    params = params_of(name)
    pretrained.save(kind_of(name), folder, params, config=CONFIGS[name], **options)
    return params


def write_text_to_video(folder: Path) -> None:
    """A pipeline as diffusers stores it, of random weights."""
    for name, kind in (("unet", "unet3d"), ("vae", "vae"), ("text_encoder", "clip_text")):
        write(kind, folder / name)
    write_tokenizer(["a red ball", "a blue box"], folder / "tokenizer", max_length=6)
    (folder / "scheduler").mkdir()
    schedule = {
        "num_train_timesteps": 100,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
    }
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(schedule))


def assert_same(ours: dict, theirs: dict) -> None:
    def same(path, a, b):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), path
        np.testing.assert_array_equal(a, b, err_msg=str(path))

    jax.tree_util.tree_map_with_path(same, ours, theirs)


def rejection(call, *parts: str) -> str:
    with pytest.raises(InputError) as error:
        call()
    message = str(error.value)
    for part in parts:
        assert str(part) in message, message
    return message


def flip(path: Path, place: int = -2) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_every_kind_is_tested():
    assert {kind_of(name) for name in CONFIGS} == set(pretrained.KINDS)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_saved_loads_bit_for_bit(name, tmp_path):
    params = write(name, tmp_path)
    loaded = pretrained.load(kind_of(name), tmp_path)
    assert_same(loaded.variables["params"], params)
    assert loaded.module == pretrained.build(kind_of(name), CONFIGS[name])
    assert json.loads((tmp_path / "config.json").read_text()) == CONFIGS[name]
    assert len(contents(tmp_path)) == 3


@pytest.mark.parametrize("name", ["clip", "vit", "fmri_encoder"])
def test_half_precision_is_stored_as_such_and_widened_on_demand(name, tmp_path):
    params = write(name, tmp_path, dtype=np.float16)
    assert {tensor.dtype for tensor in read_tensors(tmp_path).values()} == {np.dtype(np.float16)}
    half = jax.tree.map(lambda leaf: leaf.astype(np.float16), params)
    kind = kind_of(name)
    assert_same(pretrained.load(kind, tmp_path, dtype=None).variables["params"], half)
    wide = jax.tree.map(lambda leaf: leaf.astype(np.float32), half)
    assert_same(pretrained.load(kind, tmp_path).variables["params"], wide)


def test_weights_of_one_variant_are_taken_where_there_are_no_plain_ones(tmp_path):
    params = write("vit", tmp_path, dtype=np.float16)
    (tmp_path / "SHA256SUMS").unlink()
    weights = tmp_path / "model.safetensors"
    half = weights.rename(tmp_path / "model.fp16.safetensors")
    rounded = jax.tree.map(lambda x: x.astype(np.float16).astype(np.float32), params)
    pretrained.validate_weights("vit", tmp_path)
    assert_same(pretrained.load("vit", tmp_path).variables["params"], rounded)
    shutil.copy(half, tmp_path / "model.bf16.safetensors")
    said = "holds weights of the variants bf16 and fp16, must hold plain ones or those of one"
    for call in (pretrained.load, pretrained.validate_weights):
        rejection(lambda call=call: call("vit", tmp_path), f"{tmp_path}: {said}")
    write("vit", tmp_path)
    assert_same(pretrained.load("vit", tmp_path).variables["params"], params)


def test_weights_are_validated_by_their_headers_alone(tmp_path):
    """Of a file with the right header and nothing but zeros behind it, sparse on the disk."""
    write("fmri_encoder", tmp_path)
    path = tmp_path / "model.safetensors"
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    size, content = path.stat().st_size, path.read_bytes()[:header]
    path.write_bytes(content)
    os.truncate(path, size)
    pretrained.validate_weights("fmri_encoder", tmp_path)
    rejection(lambda: pretrained.load("fmri_encoder", tmp_path), "is not what was written")
    os.truncate(path, size - 1)
    rejection(lambda: pretrained.validate_weights("fmri_encoder", tmp_path), "truncated or no")


def test_validated_weights_are_all_there_and_of_the_right_shapes(tmp_path):
    write("lea", tmp_path)
    tensors = {name: np.array(x) for name, x in read_tensors(tmp_path).items()}
    name, *rest = tensors
    changed = {rest[0]: np.ones(3, np.float32), "more": np.ones(2, np.float32)}
    wrong = {key: x for key, x in tensors.items() if key != name} | changed
    write_tensors(tmp_path, wrong, config=CONFIGS["lea"], filename="model.safetensors")
    rejection(
        lambda: pretrained.validate_weights("lea", tmp_path),
        *(f"{tmp_path}: 3 tensors do not fit", f"missing: {name}", f"shape: {rest[0]} is (3,)"),
        "unused: more",
    )


def test_a_vae_need_not_be_of_colours():
    vae_of_maps = pretrained.build("vae", CONFIGS["vae"] | {"in_channels": 1, "out_channels": 2})
    shapes = pretrained.parameter_shapes("vae", vae_of_maps)
    assert shapes["encoder"]["conv_in"]["kernel"].shape == (3, 3, 1, 8)
    assert shapes["decoder"]["conv_out"]["kernel"].shape == (3, 3, 8, 2)


def test_own_models_keep_every_field_but_dropout(tmp_path):
    write("fmri_encoder", tmp_path)
    assert pretrained.load("fmri_encoder", tmp_path).module == _ENCODER.clone(dropout=0.0)
    with_dropout = pretrained.load("fmri_encoder", tmp_path, dropout=0.3)
    assert with_dropout.module == _ENCODER


def test_a_loaded_model_gives_the_numbers_of_the_saved_one(tmp_path):
    params = write("fmri_autoencoder", tmp_path)
    loaded = pretrained.load("fmri_autoencoder", tmp_path)
    x = jax.random.normal(jax.random.key(1), (2, 16, 24))
    ours = loaded.module.apply(loaded.variables, x).image
    np.testing.assert_array_equal(ours, _AUTOENCODER.apply({"params": params}, x).image)


def test_a_text_encoder_without_the_prefix_loads(tmp_path):
    params = write("clip_text", tmp_path)
    tensors = {
        name.removeprefix("text_model."): tensor.copy()
        for name, tensor in read_tensors(tmp_path).items()
    }
    write_tensors(tmp_path, tensors, config=CONFIGS["clip_text"], filename="model.safetensors")
    assert_same(pretrained.load("clip_text", tmp_path).variables["params"], params)


def test_a_vae_with_the_names_of_2023_loads(tmp_path):
    params = write("vae", tmp_path)
    old = {new: name for name, new in vae._OLD.items()}
    tensors = {}
    for name, tensor in read_tensors(tmp_path).items():
        for new, outdated in old.items():
            name = name.replace(f".attentions.0.{new}.", f".attentions.0.{outdated}.")
        tensors[name] = tensor.copy()
    assert any(".query." in name for name in tensors)
    write_tensors(
        tmp_path,
        tensors,
        config=CONFIGS["vae"],
        filename="diffusion_pytorch_model.safetensors",
    )
    assert_same(pretrained.load("vae", tmp_path).variables["params"], params)


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        ("vit", "clip"),
        ("clip", "vit"),
        ("clip", "clip_text"),
        ("vit", "video_mae"),
        ("video_mae", "vit"),
        ("vae", "unet3d"),
        ("unet3d", "wan"),
        ("wan", "unet3d"),
        ("umt5_text", "clip_text"),
        ("clip_text", "umt5_text"),
        ("unet3d", "vae"),
        ("fmri_autoencoder", "fmri_encoder"),
        ("fmri_encoder", "fmri_autoencoder"),
        ("vit", "fmri_encoder"),
        ("fmri_encoder", "lea"),
        ("lea", "fmri_encoder"),
    ],
)
def test_another_architecture_is_rejected(held, wanted, tmp_path):
    write(held, tmp_path)
    before = contents(tmp_path)
    message = rejection(lambda: pretrained.load(wanted, tmp_path), f"{tmp_path}: ")
    # One sentence, or all the tensors that do not fit where the configuration could be read so.
    assert len(message.splitlines()) == 1 or "tensors do not fit" in message.splitlines()[0]
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("fmri_encoder", {"height": None}),
        ("fmri_encoder", {"dim": "8"}),
        ("fmri_autoencoder", {"width": 25}),
        ("fmri_autoencoder", {"patch_size": 0}),
        ("clip", {"vision_config": 3}),
        ("vit", {"hidden_size": 9}),
        ("vit", {"patch_size": "16"}),
        ("video_mae", {"num_frames": 3}),
        ("unet3d", {"block_out_channels": None}),
        ("unet3d", {"norm_num_groups": 3}),
        ("wan", {"image_dim": 1280, "added_kv_proj_dim": 16, "in_channels": 36}),
        ("wan", {"in_channels": [16]}),
        ("wan", {"num_layers": 10**9}),
        ("wan", {"attention_head_dim": 10**6, "num_attention_heads": 10**6}),
        ("wan", {"rope_max_seq_len": -1}),
        ("umt5_text", {"vocab_size": 10**9}),
        ("umt5_text", {"relative_attention_max_distance": 1}),
        ("vae", {"act_fn": "relu"}),
        ("unet3d", {"block_out_channels": [10**9, 16]}),
        ("unet3d", {"block_out_channels": 16}),
        ("unet3d", {"layers_per_block": 10**9}),
        ("unet3d", {"cross_attention_dim": 10**18}),
        ("unet3d", {"norm_eps": float("nan")}),
        ("vae", {"latent_channels": True}),
        ("clip", {"projection_dim": "6"}),
        ("clip", {"text_config": 3}),
        ("clip_text", {"num_attention_heads": 0}),
        ("clip_text", {"hidden_size": -8}),
        ("clip_text", {"num_hidden_layers": 10**9}),
        ("vit", {"image_size": 10**9}),
        ("vit", {"image_size": 10**6, "patch_size": 1, "hidden_size": 10**6}),
        ("vit", {"id2label": 3}),
        ("vit", {"architectures": 3}),
        ("video_mae", {"image_size": 10**6}),
        ("fmri_autoencoder", {"height": 8 * 10**5, "width": 8 * 10**5}),
        ("fmri_autoencoder", {"decoder": 1}),
        ("fmri_encoder", {"kernel_size": 10**9}),
        ("fmri_encoder", {"name": "other"}),
        ("unet3d", {"layers_per_block": 256}),
        ("unet3d", {"down_block_types": ["CrossAttnDownBlock3D"] * 10**5}),
        ("unet3d", {"attention_head_dim": [[4]]}),
        ("unet3d", {"norm_num_groups": [4, [4]]}),
        ("vae", {"layers_per_block": 10**400}),
        ("vae", {"block_out_channels": [8, "16"]}),
        ("vae", {"block_out_channels": {"0": 8}}),
        ("vit", {"num_hidden_layers": [1]}),
        ("vit", {"image_size": [8, [8]]}),
        ("vit", {"hidden_act": ["gelu"]}),
        ("vit", {"layer_norm_eps": 10**400}),
        ("clip", {"text_config": [TINY["clip"]["text_config"]]}),
        ("fmri_autoencoder", {"mlp_ratio": float("inf")}),
        ("lea", {"window": {"a": 1}}),
    ],
    ids=lambda value: value if isinstance(value, str) else json.dumps(value),
)
def test_a_configuration_that_builds_nothing_is_rejected(name, change, tmp_path):
    write(name, tmp_path)
    changed = {k: v for k, v in {**CONFIGS[name], **change}.items() if v is not None}
    (tmp_path / "config.json").write_text(json.dumps(changed))
    message = rejection(lambda: pretrained.load(kind_of(name), tmp_path), f"{tmp_path}: ")
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("name", ["vit", "fmri_autoencoder"])
def test_missing_weights_and_files_are_named(name, tmp_path):
    write(name, tmp_path)
    filename = pretrained.KINDS[kind_of(name)].filename
    load = lambda: pretrained.load(kind_of(name), tmp_path)  # noqa: E731
    (tmp_path / filename).rename(tmp_path / "elsewhere")
    rejection(load, f"{tmp_path}: holds no weights, must hold exactly one of", filename)
    (tmp_path / "elsewhere").rename(tmp_path / filename)
    (tmp_path / "config.json").unlink()
    rejection(load, f"{tmp_path}/config.json: no such file")
    shutil.rmtree(tmp_path)
    rejection(load, f"{tmp_path}/config.json: no such file")
    assert not tmp_path.exists()


@pytest.mark.parametrize("kept", [0, 7, 300, -1])
def test_truncated_weights_are_rejected(kept, tmp_path):
    write("vit", tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    (tmp_path / "SHA256SUMS").unlink()
    before = contents(tmp_path)
    rejection(lambda: pretrained.load("vit", tmp_path), f"{path}: truncated")
    assert contents(tmp_path) == before


def test_all_tensors_that_do_not_fit_are_named_with_the_folder(tmp_path):
    write("vit", tmp_path)
    tensors = {name: tensor.copy() for name, tensor in read_tensors(tmp_path).items()}
    tensors["classifier.bias"] = np.zeros(5, np.float32)
    tensors["pooler.weight"] = tensors.pop("classifier.weight")
    write_tensors(tmp_path, tensors, config=CONFIGS["vit"], filename="model.safetensors")
    rejection(
        lambda: pretrained.load("vit", tmp_path),
        f"{tmp_path}: ",
        "missing: classifier.weight",
        "unused: pooler.weight",
        "shape: classifier.bias is (5,), expected (3,)",
    )


def test_a_failed_save_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        pretrained.save("vit", tmp_path / "a", params_of("vit"), config={"a": object()})
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("name", ["fmri_encoder", "lea", "vit"])
def test_a_flipped_bit_anywhere_in_a_saved_model_is_rejected(name, tmp_path):
    write(name, tmp_path / "whole")
    (weights,) = (tmp_path / "whole").glob("*.safetensors")
    for place in np.linspace(8, weights.stat().st_size - 1, 7, dtype=int):
        folder = shutil.copytree(tmp_path / "whole", tmp_path / str(place))
        flip(folder / weights.name, place)
        rejection(
            lambda folder=folder: pretrained.load(name, folder), f"{folder / weights.name}: is"
        )


@pytest.mark.parametrize("value", ["2", 0, [2], None, 2**70])
def test_a_configuration_is_looked_at_without_its_weights(value, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIGS["video_mae"]))
    assert pretrained.configured("video_mae", tmp_path).tubelet_size == 2
    config.write_text(json.dumps(CONFIGS["video_mae"] | {"tubelet_size": value}))
    said = f"{tmp_path}: its configuration describes no video_mae model (", "tubelet_size is"
    rejection(lambda: pretrained.configured("video_mae", tmp_path), *said)
