"""The commands against PyTorch: what we write its classes load, and what they write we read."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from transformers import CLIPModel

from benchmarks import parity_table
from glfa_jax.convert import pretrained, verify
from glfa_jax.convert.__main__ import command as main
from glfa_jax.convert.directory import read_tensors
from glfa_jax.convert.transfer import export_model, import_model
from glfa_jax.convert.verify import torch_class
from tests.convert import test_official as official
from tests.convert.test_pretrained import contents

ROWS = {row.kind: row for row in parity_table.ROWS}


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    """Every kind of model, made and stored by PyTorch where it has a class of the kind."""
    root = tmp_path_factory.mktemp("stored")
    for kind, row in ROWS.items():
        parity_table.write_small(row, root / kind)
    return root


def test_every_kind_is_in_the_table():
    assert ROWS.keys() == pretrained.KINDS.keys()


@pytest.mark.parametrize("kind", ROWS)
def test_verify_finds_every_kind_equal(kind, stored, capsys):
    arguments = ["verify", "--kind", kind, "--source", str(stored / kind), "--gradients"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "PyTorch and JAX agree" in out
    assert "gradients compared" in out


@pytest.mark.parametrize("kind", ["vae", "fmri_encoder"])
def test_verify_finds_a_changed_target(kind, stored, tmp_path, capsys):
    params = pretrained.load(kind, stored / kind).variables["params"]
    layer, leaf = ("quant_conv", "kernel") if kind == "vae" else ("func_align_layer", "weight")
    params[layer][leaf] += 0.01
    config = pretrained.read_config(stored / kind)
    pretrained.save(kind, tmp_path / "changed", params, config=config)
    arguments = ["verify", "--kind", kind, "--source", str(stored / kind)]
    assert main([*arguments, "--target", str(tmp_path / "changed")]) == 1
    assert "PyTorch and JAX DISAGREE" in capsys.readouterr().out
    import_model(kind, stored / kind, tmp_path / "same")
    assert main([*arguments, "--target", str(tmp_path / "same")]) == 0


def test_verify_compares_official_checkpoints(tmp_path, capsys):
    source = official.write(tmp_path / "a.pth", official.checkpoint("fmri_encoder"))
    arguments = ["verify", "--kind", "fmri_encoder", "--source", str(source)]
    assert main(arguments) == 2
    assert "--set num_heads=N" in capsys.readouterr().err
    assert main([*arguments, "--set", "num_heads=2", "--set", "conditioning_heads=2"]) == 0


@pytest.mark.parametrize("foundation", ["simulated", "simulated_wan"])
def test_verify_compares_every_part_of_a_pipeline(foundation, capsys):
    place = Path(__file__).parents[2] / "foundation" / foundation / "text-to-video"
    before = contents(place)
    assert main(["verify", "--kind", "text_to_video", "--source", str(place)]) == 0
    assert capsys.readouterr().out.count("PyTorch and JAX agree") == 3
    assert contents(place) == before


def test_verify_runs_a_lora_beside_what_was_merged(stored, tmp_path, capsys):
    """On a linear layer, a convolution in steps, a 1x1 one and one over time."""
    source, weights = stored / "unet3d", read_tensors(stored / "unet3d")
    rng, tensors = np.random.default_rng(0), {}
    for layer in (
        "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k",
        "down_blocks.0.downsamplers.0.conv",
        "up_blocks.1.resnets.0.conv_shortcut",
        "mid_block.temp_convs.0.conv2.3",
    ):
        out, *inner = weights[f"{layer}.weight"].shape
        up = (out, 2, *[1] * (len(inner) - 1))
        tensors[f"unet.{layer}.lora_A.weight"] = rng.standard_normal((2, *inner), np.float32)
        tensors[f"unet.{layer}.lora_B.weight"] = rng.standard_normal(up, np.float32)
        tensors[f"unet.{layer}.alpha"] = np.array(0.5, np.float32)
    lora, merged = tmp_path / "lora.safetensors", tmp_path / "merged"
    save_file(tensors, lora)
    import_model("unet3d", source, merged, lora=lora, lora_strength=-0.5)

    def code(*arguments: object) -> int:
        return main(["verify", "--kind", "unet3d", "--source", str(source), *map(str, arguments)])

    asked = ("--lora", lora, "--lora-strength", "-0.5")
    assert code(*asked, "--gradients") == 0
    assert "with the LoRA of 4 layers, its update -0.125 times" in capsys.readouterr().out
    assert code(*asked, "--target", merged) == 0
    assert code(*asked[:2], "--target", merged) == 1
    assert code("--target", merged) == 1
    assert code(*asked[2:]) == 2
    assert "no LoRA is named" in capsys.readouterr().err


def test_verify_runs_a_lora_of_wan_by_the_names_of_its_authors(stored, tmp_path, capsys):
    rng, tensors = np.random.default_rng(0), {}
    weights = read_tensors(stored / "wan")
    for layer, original in (
        ("patch_embedding", "patch_embedding"),
        ("blocks.0.attn1.to_q", "blocks.0.self_attn.q"),
        ("blocks.1.attn2.to_out.0", "blocks.1.cross_attn.o"),
        ("blocks.1.ffn.net.0.proj", "blocks.1.ffn.0"),
        ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    ):
        out, *inner = weights[f"{layer}.weight"].shape
        up = (out, 2, *[1] * (len(inner) - 1))
        for part, shape in (("A", (2, *inner)), ("B", up)):
            name = f"diffusion_model.{original}.lora_{part}.weight"
            tensors[name] = rng.standard_normal(shape, np.float32)
    save_file(tensors, tmp_path / "lora.safetensors")
    asked = ("verify", "--kind", "wan", "--source", str(stored / "wan"))
    assert main([*asked, "--lora", str(tmp_path / "lora.safetensors")]) == 0
    assert "with the LoRA of 5 layers, its update 1 times" in capsys.readouterr().out


def test_without_torch_verify_says_how_to_get_it(stored, monkeypatch, capsys):
    monkeypatch.setattr(verify.importlib.util, "find_spec", lambda name: None)
    assert main(["verify", "--kind", "vit", "--source", str(stored / "vit")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: verify compares with PyTorch: torch and diffusers must be")
    assert "pip install torch diffusers" in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("kind", [k for k in ROWS if pretrained.KINDS[k].torch_class])
def test_torch_loads_exports_as_they_are(kind, stored, tmp_path):
    """In shards, too; nothing missing, nothing unexpected, every bit the same."""
    import_model(kind, stored / kind, tmp_path / "ours", shard_size=20_000)
    export_model(kind, tmp_path / "ours", tmp_path / "theirs", shard_size=30_000)
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    model_class = torch_class(kind)
    before = model_class.from_pretrained(stored / kind).state_dict()
    after, report = model_class.from_pretrained(tmp_path / "theirs", output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    after = after.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("kind", ["unet3d", "vae", "wan"])
@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_half_precision_variants_and_older_files_are_read(kind, safe, stored, tmp_path):
    model = torch_class(kind).from_pretrained(stored / kind).half()
    model.save_pretrained(
        tmp_path / "half", variant="fp16", safe_serialization=safe, max_shard_size="30KB"
    )
    import_model(kind, tmp_path / "half", tmp_path / "ours", variant="fp16", dtype="bfloat16")
    ours, theirs = read_tensors(tmp_path / "ours"), model.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        expected = tensor.to(torch.bfloat16).view(torch.int16).numpy()
        assert ours[name].dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(ours[name].view(np.int16), expected, err_msg=name)


def test_older_transformers_files_are_read(stored, tmp_path):
    model = CLIPModel.from_pretrained(stored / "clip")
    model.config.save_pretrained(tmp_path / "old")
    torch.save(model.state_dict(), tmp_path / "old" / "pytorch_model.bin")
    import_model("clip", tmp_path / "old", tmp_path / "ours")
    ours, theirs = read_tensors(tmp_path / "ours"), read_tensors(stored / "clip")
    assert {n: t.tobytes() for n, t in ours.items()} == {n: t.tobytes() for n, t in theirs.items()}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_official_checkpoints_go_to_and_from_torch(prefix, tmp_path):
    tensors = official.checkpoint("fmri_encoder")
    named = {prefix + name: torch.from_numpy(tensor.copy()) for name, tensor in tensors.items()}
    torch.save({"model": named, "step": 3}, tmp_path / "theirs.pth")
    import_model(
        "fmri_encoder", tmp_path / "theirs.pth", tmp_path / "ours", given=official.ALL_HEADS
    )
    export_model(
        "fmri_encoder", tmp_path / "ours", tmp_path / "again.pth", module_prefix=bool(prefix)
    )
    again = torch.load(tmp_path / "again.pth", weights_only=True)["model"]
    assert again.keys() == named.keys()
    assert all(torch.equal(again[name], named[name]) for name in named)


def test_the_table_names_every_model_and_its_published_size():
    sizes = {kind: parity_table.published_size(row) for kind, row in ROWS.items()}
    parameters = {kind: size[1] for kind, size in sizes.items()}
    assert parameters["unet3d"] == 1_411_233_860
    assert parameters["wan"] == 1_418_996_800
    assert parameters["clip"] == 986_109_441
    assert parameters["fmri_autoencoder"] == 609_874_176
    text = parity_table.table((ROWS["vit"],))
    assert "| `vit` | 200 | 86,567,656 | " in text
    page = (parity_table.ROOT / "docs" / "parity.md").read_text()
    for row in ROWS.values():
        tensors, count = sizes[row.kind]
        assert f"| {row.model} | `{row.kind}` | {tensors:,} | {count:,} | " in page
