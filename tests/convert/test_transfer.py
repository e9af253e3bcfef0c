"""Import and export: exact inverses for every kind, total, and nothing written on bad input."""

import json
import os
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from glfa_jax.convert import pretrained, transfer
from glfa_jax.convert.directory import read_tensors, write_tensors
from glfa_jax.convert.pickled import write_pickled
from glfa_jax.convert.sources import guess_kind, open_source
from glfa_jax.convert.transfer import export_model, import_model
from glfa_jax.data.captions import Tokenizer
from tests.convert import test_pretrained as tiny
from tests.convert.test_pretrained import CONFIGS, assert_same, contents, kind_of, rejection

NAMES = list(CONFIGS)


def tensors_of(folder: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {n: (str(t.dtype), t.shape, t.tobytes()) for n, t in read_tensors(folder).items()}


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    """Every model in a folder of its name, and a pipeline."""
    root = tmp_path_factory.mktemp("stored")
    for name in NAMES:
        tiny.write(name, root / name)
    tiny.write_text_to_video(root / "text_to_video")
    index = {"_class_name": "TextToVideoSDPipeline", "unet": ["diffusers", "UNet3DConditionModel"]}
    (root / "text_to_video" / "model_index.json").write_text(json.dumps(index))
    return root


@pytest.mark.parametrize("name", NAMES)
def test_import_then_export_gives_the_source_bit_for_bit(name, stored, tmp_path):
    kind = kind_of(name)
    import_model(kind, stored / name, tmp_path / "ours")
    export_model(kind, tmp_path / "ours", tmp_path / "theirs")
    assert tensors_of(tmp_path / "theirs") == tensors_of(stored / name)
    config = json.loads((tmp_path / "theirs" / "config.json").read_text())
    assert config == {**pretrained.KINDS[kind].identity, **CONFIGS[name]}
    assert_same(pretrained.load(kind, tmp_path / "ours").variables["params"], tiny.params_of(name))


def test_a_pipeline_goes_both_ways_with_all_its_parts(stored, tmp_path):
    source = stored / "text_to_video"
    import_model("text_to_video", source, tmp_path / "ours")
    export_model("text_to_video", tmp_path / "ours", tmp_path / "theirs")
    files = {str(path.relative_to(source)) for path in source.rglob("*")}
    files |= {"tokenizer/SHA256SUMS", "scheduler/SHA256SUMS"}
    for folder in (tmp_path / "ours", tmp_path / "theirs"):
        assert {str(path.relative_to(folder)) for path in folder.rglob("*")} == files
        for part in pretrained.pipeline_in(source).parts:
            assert tensors_of(folder / part) == tensors_of(source / part)
        for name in ("model_index.json", "scheduler/scheduler_config.json", "tokenizer/vocab.json"):
            assert (folder / name).read_bytes() == (source / name).read_bytes()
    loaded = pretrained.load("unet3d", tmp_path / "theirs" / "unet")
    assert_same(loaded.variables["params"], tiny.params_of("unet3d"))


def test_a_model_brings_its_preprocessing_along(stored, tmp_path):
    source = shutil.copytree(stored / "vit", tmp_path / "vit")
    (source / "preprocessor_config.json").write_text('{"do_resize": true}')
    (source / "training_args.bin").write_text("no weights")
    import_model("vit", source, tmp_path / "ours")
    names = {path.name for path in (tmp_path / "ours").iterdir()}
    assert names == {
        *("config.json", "model.safetensors", "preprocessor_config.json", "SHA256SUMS")
    }


@pytest.mark.parametrize(
    ("dtype", "kept"), [("float32", np.float32), ("bfloat16", ml_dtypes.bfloat16)]
)
def test_dtypes_change_and_the_configuration_with_them(dtype, kept, tmp_path):
    config = CONFIGS["clip"] | {"torch_dtype": "float16"}
    config["text_config"] = config["text_config"] | {"dtype": "float16"}
    params = tiny.params_of("clip")
    pretrained.save("clip", tmp_path / "half", params, config=config, dtype=np.float16)
    import_model("clip", tmp_path / "half", tmp_path / "ours", dtype=dtype)
    half, ours = read_tensors(tmp_path / "half"), read_tensors(tmp_path / "ours")
    assert {t.dtype for t in ours.values()} == {np.dtype(kept)}
    for name, tensor in half.items():
        np.testing.assert_array_equal(ours[name], tensor.astype(kept), err_msg=name)
    written = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert (written["torch_dtype"], written["text_config"]["dtype"]) == (dtype, dtype)
    import_model("clip", tmp_path / "half", tmp_path / "same")
    assert tensors_of(tmp_path / "same") == tensors_of(tmp_path / "half")


@pytest.mark.parametrize(
    ("name", "stem"), [("unet3d", "diffusion_pytorch_model"), ("vit", "model")]
)
def test_shards_in_and_out(name, stem, stored, tmp_path):
    import_model(name, stored / name, tmp_path / "ours", shard_size=2000)
    files = sorted(path.name for path in (tmp_path / "ours").glob("*.safetensors"))
    assert len(files) > 2
    count = len(files)
    assert files == [f"{stem}-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)]
    assert (tmp_path / "ours" / f"{stem}.safetensors.index.json").is_file()
    export_model(name, tmp_path / "ours", tmp_path / "theirs")
    assert tensors_of(tmp_path / "theirs") == tensors_of(stored / name)


def test_a_variant_is_read_when_asked_for_and_named_when_not(stored, tmp_path):
    source = shutil.copytree(stored / "vae", tmp_path / "vae")
    stem = "diffusion_pytorch_model"
    (source / f"{stem}.safetensors").rename(source / f"{stem}.fp16.safetensors")
    (source / "SHA256SUMS").unlink()
    rejection(
        lambda: import_model("vae", source, tmp_path / "ours"),
        "there is the variant fp16, which must be asked for",
    )
    import_model("vae", source, tmp_path / "ours", variant="fp16")
    assert tensors_of(tmp_path / "ours") == tensors_of(stored / "vae")


@pytest.mark.parametrize("name", ["vit", "unet3d"])
@pytest.mark.parametrize("sharded", [False, True])
def test_pickled_weights_are_read_where_there_are_no_others(name, sharded, stored, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(stored / name / "config.json", source)
    tensors = read_tensors(stored / name)
    stem = "pytorch_model" if name == "vit" else "diffusion_pytorch_model"
    if sharded:
        names = sorted(tensors)
        parts = {
            f"{stem}-00001-of-00002.bin": names[::2],
            f"{stem}-00002-of-00002.bin": names[1::2],
        }
        for file, part in parts.items():
            write_pickled(source / file, {n: tensors[n] for n in part})
        index = {"weight_map": {n: file for file, part in parts.items() for n in part}}
        (source / f"{stem}.bin.index.json").write_text(json.dumps(index))
    else:
        write_pickled(source / f"{stem}.bin", tensors)
    import_model(name, source, tmp_path / "ours")
    assert tensors_of(tmp_path / "ours") == tensors_of(stored / name)
    # Safetensors win, as they do for PyTorch's classes.
    shutil.copy(stored / name / pretrained.KINDS[name].filename, source)
    for path in source.glob("*.bin"):
        path.write_bytes(b"broken")
    assert tensors_of(source) == tensors_of(stored / name)


def test_outdated_layouts_come_out_in_the_current_one(stored, tmp_path):
    bare = {
        name.removeprefix("text_model."): tensor.copy()
        for name, tensor in read_tensors(stored / "clip_text").items()
    }
    bare["embeddings.position_ids"] = np.arange(6)
    config = CONFIGS["clip_text"]
    write_tensors(tmp_path / "bare", bare, config=config, filename="model.safetensors")
    import_model("clip_text", tmp_path / "bare", tmp_path / "ours")
    assert tensors_of(tmp_path / "ours") == tensors_of(stored / "clip_text")


@pytest.mark.parametrize("name", [*NAMES, "text_to_video"])
def test_kinds_are_guessed(name, stored):
    assert guess_kind(stored / name) == kind_of(name)


def spoil_class(folder: Path) -> str:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["DeiTModel"]}))
    return "it is of the class DeiTModel, must be of ViTForImageClassification"


def spoil_option(folder: Path) -> str:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    return "hidden_act is 'relu'"


def spoil_length(folder: Path) -> str:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    return f"{path}: truncated"


def spoil_shard(folder: Path) -> str:
    tensors = {name: tensor.copy() for name, tensor in read_tensors(folder).items()}
    write_tensors(
        folder, tensors, config=CONFIGS["vit"], filename="model.safetensors", shard_size=900
    )
    (folder / "model.safetensors").unlink()
    sorted(folder.glob("model-*"))[1].unlink()
    return "names missing files: model-00002-of-"


def spoil_names(folder: Path) -> str:
    tensors = {name: tensor.copy() for name, tensor in read_tensors(folder).items()}
    tensors["classifier.extra"] = tensors.pop("classifier.bias")
    write_tensors(folder, tensors, config=CONFIGS["vit"], filename="model.safetensors")
    return "missing: classifier.bias\n  unused: classifier.extra"


def spoil_shape(folder: Path) -> str:
    tensors = {name: tensor.copy() for name, tensor in read_tensors(folder).items()}
    tensors["classifier.bias"] = np.zeros(7, np.float32)
    write_tensors(folder, tensors, config=CONFIGS["vit"], filename="model.safetensors")
    return "shape: classifier.bias is (7,), expected (3,)"


def spoil_dtype(folder: Path) -> str:
    tensors = {name: tensor.copy() for name, tensor in read_tensors(folder).items()}
    tensors["classifier.bias"] = np.zeros(3, np.int8)
    write_tensors(folder, tensors, config=CONFIGS["vit"], filename="model.safetensors")
    return "dtype: classifier.bias is int8, expected floating-point numbers"


SPOILS = [spoil_class, spoil_option, spoil_length, spoil_shard, spoil_names, spoil_shape]
SPOILS += [spoil_dtype]


@pytest.mark.parametrize("spoil", SPOILS)
@pytest.mark.parametrize("direction", [import_model, export_model])
def test_bad_input_is_named_and_nothing_is_written(spoil, direction, stored, tmp_path):
    source = shutil.copytree(stored / "vit", tmp_path / "vit")
    said = spoil(source)
    (source / "SHA256SUMS").unlink()
    before = contents(tmp_path)
    rejection(lambda: direction("vit", source, tmp_path / "new" / "ours"), str(source), said)
    assert contents(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_a_broken_part_of_a_pipeline_stops_all(stored, tmp_path):
    source = shutil.copytree(stored / "text_to_video", tmp_path / "t2v")
    (source / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    said = f"{source / 'vae'}: holds no weights"
    rejection(lambda: import_model("text_to_video", source, tmp_path / "ours"), said)
    (source / "unet" / "config.json").unlink()
    shutil.rmtree(source / "tokenizer")
    call = lambda: import_model("text_to_video", source, tmp_path / "ours")  # noqa: E731
    message = rejection(call, said, f"{source / 'unet' / 'config.json'}: no such file")
    assert len(message.splitlines()) == 3
    assert list(tmp_path.iterdir()) == [source]


def test_another_pipeline_is_not_taken_for_one(stored, tmp_path):
    source = shutil.copytree(stored / "text_to_video", tmp_path / "t2v")
    index = source / "model_index.json"
    index.write_text(json.dumps({"unet": ["diffusers", "UNet2DConditionModel"]}))
    assert guess_kind(source) is None
    call = lambda: import_model("unet3d", source, tmp_path / "ours")  # noqa: E731
    rejection(call, f"{source}: is a pipeline of several models")
    call = lambda: import_model("text_to_video", index, tmp_path / "ours")  # noqa: E731
    rejection(call, f"{index}: is a file; a text_to_video is read from its folder")
    index.write_text("[")
    call = lambda: import_model("text_to_video", source, tmp_path / "ours")  # noqa: E731
    rejection(call, f"{index}: not valid JSON")


def test_a_filled_target_is_left_alone(stored, tmp_path):
    (tmp_path / "ours").mkdir()
    import_model("vit", stored / "vit", tmp_path / "ours")
    before = contents(tmp_path)
    rejection(
        lambda: import_model("vit", stored / "vit", tmp_path / "ours"),
        f"{tmp_path / 'ours'}: exists already, must be a new or an empty folder",
    )
    assert contents(tmp_path) == before


def test_a_failed_write_leaves_nothing(stored, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(transfer, "_write", fail)
    call = lambda: import_model("vit", stored / "vit", tmp_path / "a" / "b")  # noqa: E731
    rejection(call, f"{tmp_path / 'a' / 'b'}: cannot be written (disk full)")
    assert not list(tmp_path.iterdir())


def test_an_architecture_is_stated_for_checkpoints_only(stored):
    said = "its architecture is in its config.json"
    rejection(lambda: open_source("vit", stored / "vit", given={"num_heads": 2}), said)


def test_settings_are_parsed():
    deep = "[" * 100_000
    assert transfer.parse_given([f"num_heads={deep}"]) == {"num_heads": deep}
    given = transfer.parse_given(["num_heads=8", "head=conv", "mlp_ratio=4.0"])
    assert given == {"num_heads": 8, "head": "conv", "mlp_ratio": 4.0}
    for wrong in ("num_heads", "=3", "a="):
        rejection(lambda wrong=wrong: transfer.parse_given([wrong]), "must read key=value")


@pytest.mark.parametrize("part", ["tokenizer/vocab.json", "scheduler/scheduler_config.json"])
def test_what_was_imported_beside_the_models_carries_checksums_too(part, stored, tmp_path):
    transfer._copy_beside(stored / "text_to_video", tmp_path)
    path = tmp_path / part
    path.write_text(path.read_text().replace("1", "2"))
    said = f"{path}: is not what was written"
    if "tokenizer" in part:
        rejection(lambda: Tokenizer.load(path.parent), said)
        rejection(lambda: pretrained.find_tokenizer(tmp_path), said)
    else:
        rejection(lambda: pretrained.read_schedule(tmp_path), said)


def test_a_changed_preprocessing_is_rejected_with_its_model(stored, tmp_path):
    source = shutil.copytree(stored / "vit", tmp_path / "vit")
    (source / "preprocessor_config.json").write_text('{"do_resize": false}')
    import_model("vit", source, tmp_path / "ours")
    path = tmp_path / "ours" / "preprocessor_config.json"
    path.write_text('{"do_resize": true}')
    rejection(lambda: pretrained.load("vit", tmp_path / "ours"), f"{path}: is not what was written")


def test_a_folder_in_the_tokenizers_stays_behind(stored, tmp_path):
    source = shutil.copytree(stored / "text_to_video", tmp_path / "t2v")
    (source / "tokenizer" / "loop").symlink_to(source)
    os.mkfifo(source / "tokenizer" / "pipe")
    (tmp_path / "ours").mkdir()
    transfer._copy_beside(source, tmp_path / "ours")
    assert not {"loop", "pipe"} & {path.name for path in (tmp_path / "ours/tokenizer").iterdir()}
