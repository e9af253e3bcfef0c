"""LoRAs on the command line: merged into a UNet as it is imported, and from layout to layout."""

import json
import shutil
from pathlib import Path
from typing import get_args

import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

from glfa_jax.convert import __main__ as commands
from glfa_jax.convert import pretrained, transfer
from glfa_jax.convert.directory import read_tensors
from glfa_jax.convert.lora import Lora
from glfa_jax.convert.lora_file import Layout, load_lora, save_lora
from glfa_jax.convert.pickled import write_pickled
from glfa_jax.models.lora import merge
from tests.convert import test_pretrained as tiny
from tests.convert.test_commands import call  # noqa: F401 - a fixture
from tests.convert.test_lora import assert_same, kohya
from tests.convert.test_pretrained import contents

ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
TIME = "down_blocks.0.temp_convs.0.conv1.2"
SHORTCUT = "up_blocks.1.resnets.0.conv_shortcut"


def update() -> dict[str, np.ndarray]:
    """Rank 2 on a linear layer, a 1x1 convolution and one over time, with bare names."""
    shapes = {ATTENTION: ((8,), 8, ()), TIME: ((8, 3, 1, 1), 8, (1,) * 3)}
    shapes[SHORTCUT] = ((24, 1, 1), 8, (1, 1))
    rng = np.random.default_rng(2)
    tensors = {}
    for name, (inner, out, one_tap) in shapes.items():
        tensors[f"{name}.lora_A.weight"] = rng.standard_normal((2, *inner), np.float32)
        tensors[f"{name}.lora_B.weight"] = rng.standard_normal((out, 2, *one_tap), np.float32)
    return tensors


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A pipeline, and a LoRA as kohya's scripts store it, of the scale 2."""
    root = tmp_path_factory.mktemp("lora")
    tiny.write_text_to_video(root / "t2v")
    index = {"unet": ["diffusers", "UNet3DConditionModel"]}
    (root / "t2v" / "model_index.json").write_text(json.dumps(index))
    tensors = kohya(update())
    alphas = {name.split(".")[0] + ".alpha": np.array(4, np.float32) for name in tensors}
    save_file(tensors | alphas, root / "lora.safetensors")
    return root


def shapes() -> dict:
    return tiny.params_of("unet3d")


def merged_by_the_model(lora: Path, *, strength: float = 1.0) -> dict[str, np.ndarray]:
    """What training's own merge makes of the same, under PyTorch's names."""
    found = load_lora(lora, params=shapes())
    assert found.scale == 2
    params = merge(shapes(), found.tree, scale=strength * found.scale)
    return pretrained.export_views(params, pretrained.KINDS["unet3d"].written)


@pytest.mark.parametrize("strength", [1.0, -0.3])
@pytest.mark.parametrize(("kind", "part"), [("unet3d", "unet"), ("text_to_video", ".")])
def test_a_lora_is_merged_as_training_merges_it(kind, part, strength, place, call, tmp_path):  # noqa: F811
    source, target = place / "t2v" / part, tmp_path / "ours"
    lora = place / "lora.safetensors"
    stated = () if strength == 1 else ("--lora-strength", strength)
    arguments = ("--kind", kind, "--source", source, "--target", target, "--lora", lora, *stated)
    assert call("import", *arguments)[0] == 0
    unet = target if kind == "unet3d" else target / "unet"
    ours, wanted = read_tensors(unet), merged_by_the_model(lora, strength=strength)
    before = read_tensors(place / "t2v" / "unet")
    assert ours.keys() == wanted.keys() == before.keys()
    changed = {name for name in ours if not np.array_equal(ours[name], before[name])}
    assert changed == {f"{name}.weight" for name in (ATTENTION, TIME, SHORTCUT)}
    for name in changed:
        np.testing.assert_allclose(ours[name], wanted[name], rtol=1e-6, atol=1e-6, err_msg=name)
    if kind == "text_to_video":
        for other in ("vae", "text_encoder"):
            theirs = read_tensors(place / "t2v" / other)
            for name, tensor in read_tensors(target / other).items():
                np.testing.assert_array_equal(tensor, theirs[name], err_msg=name)


@pytest.mark.parametrize(("asked", "kept"), [("stored", ml_dtypes.bfloat16), ("float32", None)])
def test_the_update_is_added_in_float32_and_rounded_once(asked, kept, place, tmp_path):
    half = tmp_path / "half"
    tiny.write("unet3d", half, dtype=ml_dtypes.bfloat16)
    lora = place / "lora.safetensors"
    transfer.import_model("unet3d", half, tmp_path / "ours", dtype=asked, lora=lora)
    name = f"{ATTENTION}.weight"
    down, up = (update()[f"{ATTENTION}.lora_{part}.weight"] for part in "AB")
    wanted = read_tensors(half)[name].astype(np.float32) + 2 * (up @ down)
    found = read_tensors(tmp_path / "ours")[name]
    assert found.dtype == np.dtype(kept or np.float32)
    # Half a unit in the last of bfloat16's 8 digits.
    bound = 2.0**-8 if kept else 1e-6
    assert (np.abs(found.astype(np.float32) - wanted) <= bound * np.abs(wanted) + 1e-6).all()


@pytest.mark.parametrize("layout", ["peft", "diffusers"])
def test_a_lora_goes_from_layout_to_layout(layout, place, call, tmp_path):  # noqa: F811
    source, unet = place / "lora.safetensors", place / "t2v" / "unet"
    target = tmp_path / "new"
    places = ("--source", source, "--base", unet, "--target", target)
    code, out, error = call("lora", *places, "--layout", layout)
    assert (code, error) == (0, "")
    assert out == f"{target}: 3 adapted layers of {source}\n"
    ours = load_lora(target, params=shapes())
    assert_same(ours, load_lora(source, params=shapes()))
    again = tmp_path / "again"
    assert call("lora", "--source", target, "--base", unet, "--target", again)[0] == 0
    assert_same(load_lora(again, params=shapes()), ours)
    assert {path.name for path in again.iterdir()} == {
        "SHA256SUMS",
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_older_pickled_files_are_read_where_there_are_no_others(place, tmp_path):
    tensors = {name: t.copy() for name, t in load_file(place / "lora.safetensors").items()}
    wanted = load_lora(place / "lora.safetensors", params=shapes())
    write_pickled(tmp_path / "any.pt", tensors)
    assert_same(load_lora(tmp_path / "any.pt", params=shapes()), wanted)
    shutil.copy(tmp_path / "any.pt", tmp_path / "pytorch_lora_weights.bin")
    assert_same(load_lora(tmp_path, params=shapes()), wanted)
    save_lora(tmp_path / "new", Lora(wanted.tree, 3.0), layout="diffusers")
    shutil.copy(tmp_path / "new" / "pytorch_lora_weights.safetensors", tmp_path)
    assert load_lora(tmp_path, params=shapes()).scale == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("import", "--kind", "vae", "--source", "t2v/vae"), "a LoRA adapts a unet3d"),
        (("import", "--kind", "unet3d", "--source", "t2v/unet", "--lora", "absent"), "absent: no"),
        (
            ("import", "--kind", "unet3d", "--source", "t2v/unet", "--lora-strength", "nan"),
            "a LoRA's strength is nan, must be finite",
        ),
        (("lora", "--source", "absent", "--base", "t2v/unet"), "absent: no such file or folder"),
        (("lora", "--source", "lora.safetensors", "--base", "t2v"), "t2v: is a pipeline"),
        (
            ("lora", "--source", "lora.safetensors", "--base", "t2v/vae"),
            "it is of the class AutoencoderKL, must be of UNet3DConditionModel",
        ),
    ],
)
def test_bad_input_is_one_sentence(arguments, said, place, call, tmp_path, monkeypatch):  # noqa: F811
    root = shutil.copytree(place, tmp_path / "root")
    monkeypatch.chdir(root)
    before = contents(root)
    if arguments[0] == "import" and "--lora" not in arguments:
        arguments = (*arguments, "--lora", "lora.safetensors")
    code, out, error = call(*arguments, "--target", "new")
    assert (code, out, len(error.splitlines())) == (2, "", 1)
    assert said in error
    assert contents(root) == before


def test_all_that_does_not_fit_is_named_and_nothing_is_written(place, call, tmp_path):  # noqa: F811
    tensors = {name: tensor.copy() for name, tensor in kohya(update()).items()}
    stem = "lora_unet_" + ATTENTION.replace(".", "_")
    tensors["lora_unet_strange.lora_down.weight"] = tensors.pop(f"{stem}.lora_up.weight")
    save_file(tensors, tmp_path / "bad.safetensors")
    before = contents(tmp_path)
    unet, target = place / "t2v" / "unet", tmp_path / "new"
    kind = ("import", "--kind", "unet3d", "--lora", tmp_path / "bad.safetensors")
    merged = call(*kind, "--source", unet, "--target", target)
    lora = ("lora", "--source", tmp_path / "bad.safetensors", "--base", unet)
    apart = call(*lora, "--target", target)
    assert merged == apart
    code, out, error = merged
    assert (code, out) == (2, "")
    for part in ("2 things do not fit", f"missing: up of {ATTENTION}", "lora_unet_strange.lora_"):
        assert part in error
    assert contents(tmp_path) == before


def test_a_strength_without_a_lora_is_rejected(place, call, tmp_path):  # noqa: F811
    source = ("--source", place / "t2v" / "unet", "--target", tmp_path / "new")
    code, _, error = call("import", "--kind", "unet3d", *source, "--lora-strength", "0.5")
    assert (code, "no LoRA is named" in error) == (2, True)


def test_only_layers_with_a_kernel_are_adapted(place):
    found = load_lora(place / "lora.safetensors", params=shapes())
    assert sorted(found.modules) == sorted((ATTENTION, TIME, SHORTCUT))
    assert len(flatten_dict(found.tree)) == 6


def test_the_command_offers_what_there_is():
    assert tuple(commands.KINDS) == (*pretrained.KINDS, "text_to_video")
    assert set(commands.DTYPES) == set(transfer.DTYPES)
    assert get_args(Layout) == commands.LAYOUTS
