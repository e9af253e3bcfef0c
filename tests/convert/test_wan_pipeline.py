"""A whole pipeline of Wan goes both ways by one command, as one of ModelScope's does."""

import json
import shutil
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest

from benchmarks.models import WAN, shapes_of
from examples.simulated.tokenizer import write_tokenizer
from glfa_jax.convert import pretrained
from glfa_jax.convert.directory import read_tensors
from glfa_jax.convert.lora import Lora
from glfa_jax.convert.lora_file import save_lora
from glfa_jax.convert.sources import guess_kind
from glfa_jax.diffusion.flow import FlowSchedule
from glfa_jax.generators.wan import WanGenerator
from glfa_jax.models.lora import init_lora, merge
from tests.convert import test_pretrained as tiny
from tests.convert.test_commands import call, rows  # noqa: F401 - a fixture
from tests.convert.test_pretrained import contents
from tests.convert.test_transfer import tensors_of

PARTS = {"transformer": "wan", "vae": "wan_vae", "text_encoder": "umt5_text"}
INDEX = {
    "_class_name": "WanPipeline",
    "scheduler": ["diffusers", "UniPCMultistepScheduler"],
    "text_encoder": ["transformers", "UMT5EncoderModel"],
    "tokenizer": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "WanTransformer3DModel"],
    "transformer_2": [None, None],  # as newer diffusers write it of Wan 2.1
    "vae": ["diffusers", "AutoencoderKLWan"],
}


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wan") / "theirs"
    for part, kind in PARTS.items():
        tiny.write(kind, folder / part)
    write_tokenizer(["a red ball", "a blue box"], folder / "tokenizer", max_length=6)
    (folder / "scheduler").mkdir()
    schedule = json.dumps(FlowSchedule(shift=3.0).to_config())
    (folder / "scheduler" / "scheduler_config.json").write_text(schedule)
    (folder / "model_index.json").write_text(json.dumps(INDEX))
    return folder


def moved(call, direction: str, source: Path, target: Path, *more: object):  # noqa: F811
    places = ("--source", source, "--target", target)
    return call(direction, "--kind", "text_to_video", *places, *more)


def test_all_parts_go_both_ways(stored, call, tmp_path):  # noqa: F811
    assert guess_kind(stored) == "text_to_video"
    ours, theirs = tmp_path / "ours", tmp_path / "back"
    for direction, source, target in (("import", stored, ours), ("export", ours, theirs)):
        code, out, error = moved(call, direction, source, target)
        assert (code, error) == (0, "")
        count = sum(len(read_tensors(stored / part)) for part in PARTS)
        assert out == f"{target}: {count} tensors of {source}\n"
        for part in PARTS:
            assert tensors_of(target / part) == tensors_of(stored / part)
        for name in ("model_index.json", "scheduler/scheduler_config.json", "tokenizer/vocab.json"):
            assert (target / name).read_bytes() == (stored / name).read_bytes()


def test_it_may_lack_the_text_encoder(stored, call, tmp_path):  # noqa: F811
    source = shutil.copytree(stored, tmp_path / "source")
    shutil.rmtree(source / "text_encoder")
    assert moved(call, "import", source, tmp_path / "ours", "--dtype", "bfloat16")[0] == 0
    assert not (tmp_path / "ours" / "text_encoder").exists()
    kept = read_tensors(tmp_path / "ours" / "transformer").values()
    assert {x.dtype for x in kept} == {np.dtype(ml_dtypes.bfloat16)}


def test_what_it_holds_is_told(stored, call):  # noqa: F811
    code, out, _ = call("inspect", "--source", stored)
    assert code == 0
    assert rows(out)["kind"] == "text_to_video by its looks"
    for part, kind in PARTS.items():
        assert f"{part}: {kind}" in out.splitlines()
    assert out.count("tensors have their place") == 3


def test_a_lora_is_merged_on_the_way(stored, call, tmp_path):  # noqa: F811
    params, patterns = tiny.params_of("wan"), WanGenerator.trainable["lora"].patterns
    fresh = init_lora(params, patterns=patterns, rank=2, key=jax.random.key(0))
    tree = jax.tree.map(lambda x: x + 0.1, fresh)
    save_lora(tmp_path / "lora", Lora(tree, 0.5, "wan"), layout="diffusers")
    asked = ("--lora", tmp_path / "lora", "--lora-strength", "2")
    code, out, _ = moved(call, "import", stored, tmp_path / "ours", *asked)
    assert (code, out.endswith("with the LoRA merged in\n")) == (0, True)
    found = pretrained.load("wan", tmp_path / "ours" / "transformer").variables["params"]
    wanted = merge(params, tree, scale=1.0)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)  # noqa: E731
    jax.tree.map(close, found, wanted)
    assert tensors_of(tmp_path / "ours" / "vae") == tensors_of(stored / "vae")


def test_the_size_of_14b_is_read():
    """As many parameters as published, counted by the block."""

    def count(layers: int) -> int:
        sides = {"num_attention_heads": 40, "ffn_dim": 13824, "num_layers": layers}
        shapes = shapes_of("wan", WAN | sides)
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))

    one, two = count(1), count(2)
    assert one + 39 * (two - one) == 14_288_491_584


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_dim": 1280, "in_channels": 36}, "a model that starts from images"),
        ({"added_kv_proj_dim": 5120}, "a model that starts from images"),
        ({"_class_name": "UNet3DConditionModel"}, "must be of WanTransformer3DModel"),
    ],
)
def test_another_transformer_is_one_sentence(changes, said, stored, call, tmp_path):  # noqa: F811
    source = shutil.copytree(stored, tmp_path / "source")
    path = source / "transformer" / "config.json"
    (source / "transformer" / "SHA256SUMS").unlink()
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    rejected(call, source, said, str(source / "transformer"))


def test_two_transformers_are_one_sentence(stored, call, tmp_path):  # noqa: F811
    source = shutil.copytree(stored, tmp_path / "source")
    shutil.copytree(source / "transformer", source / "transformer_2")
    rejected(call, source, "as in Wan 2.2, is not supported")


def test_a_missing_autoencoder_is_one_sentence(stored, call, tmp_path):  # noqa: F811
    source = shutil.copytree(stored, tmp_path / "source")
    shutil.rmtree(source / "vae")
    rejected(call, source, f"{source / 'vae'}: no such file")


def rejected(call, source: Path, *parts: str) -> None:  # noqa: F811
    before = contents(source.parent)
    code, out, error = moved(call, "import", source, source.parent / "ours")
    assert (code, out, len(error.splitlines())) == (2, "", 1)
    for part in parts:
        assert part in error
    assert contents(source.parent) == before
