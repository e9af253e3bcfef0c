"""Parsers of pretrained models: weights, configurations, schedules, tokenizers."""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import transformers.models.clip  # noqa: F401  imported before the readers are forked

from benchmarks import models
from benchmarks.fuzz.parser import Parser
from examples.simulated.tokenizer import write_tokenizer
from glfa_jax import system
from glfa_jax.convert import pretrained
from glfa_jax.convert.directory import read_config, read_file, read_tensors, write_tensors
from glfa_jax.convert.pickled import write_pickled
from glfa_jax.data.captions import Tokenizer
from glfa_jax.files import CHECKSUMS

_SHAPES = {"a.weight": (3, 4), "a.bias": (4,), "b": (2, 1, 3), "scalar": (), "none": (0, 2)}


# --- weights --------------------------------------------------------------------------------------


def _tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    made = {name: rng.normal(size=shape).astype(np.float32) for name, shape in _SHAPES.items()}
    return made | {"a.count": np.arange(4), "a.half": made["a.weight"].astype(np.float16)}


def _safetensors(folder: Path) -> Sequence[Path]:
    write_tensors(folder, _tensors(), config={}, filename="model.safetensors")
    return [folder / "model.safetensors"]


def _pickled(folder: Path) -> Sequence[Path]:
    """As PyTorch writes them now, with and without a key around, and as it did before 1.6."""
    tensors = _tensors()
    write_pickled(folder / "plain.pth", tensors)
    write_pickled(folder / "nested.pth", tensors, key="state_dict")
    with zipfile.ZipFile(folder / "plain.pth") as archive:
        content = archive.read("archive/data.pkl")
    system_info = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    head = [pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, system_info)]
    keys = pickle.dumps([str(i) for i in range(len(tensors))], 2)
    storages = [struct.pack("<q", x.size) + x.tobytes() for x in tensors.values()]
    (folder / "legacy.bin").write_bytes(b"".join([*head, content, keys, *storages]))
    packed = io.BytesIO()
    with zipfile.ZipFile(folder / "plain.pth") as old, zipfile.ZipFile(packed, "w", 8) as new:
        for member in old.infolist():
            info = zipfile.ZipInfo(member.filename)
            info.compress_type = zipfile.ZIP_DEFLATED
            new.writestr(info, old.read(member))
    (folder / "packed.pth").write_bytes(packed.getvalue())
    return sorted(folder.iterdir())


def _read_file(path: Path) -> None:
    """Views of the file; of those that a model could take, all numbers are looked at."""
    for tensor in read_file(path).values():
        if tensor.shape in _SHAPES.values():
            tensor.copy()


def _sharded(folder: Path) -> Sequence[Path]:
    write_tensors(folder, _tensors(), config={}, filename="model.safetensors", shard_size=48)
    (folder / CHECKSUMS).unlink(missing_ok=True)  # would find out all that is changed
    return [path for path in folder.iterdir() if path.name.endswith(".index.json")]


# --- configurations -------------------------------------------------------------------------------


def _configs(folder: Path) -> Sequence[Path]:
    for kind, content in models.TINY.items():
        (folder / kind).mkdir()
        (folder / kind / "config.json").write_text(json.dumps(content, indent=2))
    return sorted(folder.glob("*/config.json"))


def _read_config(path: Path) -> None:
    pretrained.described(path.parent.name, read_config(path.parent), place=path.parent)


def _schedulers(folder: Path) -> Sequence[Path]:
    common = {"num_train_timesteps": 100, "beta_start": 0.00085, "beta_end": 0.012}
    more = {"_class_name": "DDIMScheduler", "clip_sample": False, "set_alpha_to_one": False}
    more |= {"steps_offset": 1, "trained_betas": None, "prediction_type": "v_prediction"}
    for name, content in (
        ("plain", common | {"beta_schedule": "scaled_linear"}),
        ("full", common | more | {"beta_schedule": "linear", "rescale_betas_zero_snr": True}),
    ):
        (folder / name / "scheduler").mkdir(parents=True)
        (folder / name / "scheduler" / "scheduler_config.json").write_text(json.dumps(content))
    return sorted(folder.rglob("*.json"))


def _read_schedule(path: Path) -> None:
    _ = pretrained.read_schedule(path.parents[1]).alphas_cumprod


def _preprocessors(folder: Path) -> Sequence[Path]:
    square = {"do_resize": True, "size": {"height": 8, "width": 8}, "resample": 2}
    square |= {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
    square |= {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    edge = square | {"size": {"shortest_edge": 10}, "resample": 3, "do_center_crop": True}
    edge |= {"crop_size": {"height": 8, "width": 8}, "do_convert_rgb": True}
    kind, made = "vit", []
    params = models.random_params(models.shapes_of(kind, models.TINY[kind]))
    for name, content in (("square", square), ("edge", edge)):
        pretrained.save(kind, folder / name, params, config=models.TINY[kind])
        made.append(folder / name / "preprocessor_config.json")
        made[-1].write_text(json.dumps(content))
    return made


def _read_preprocessor(path: Path) -> None:
    model = system.load_evaluation_model(path.parents[1], "vit", path.parent.name)
    model.preprocess(np.zeros((2, 12, 16, 3), np.uint8))


def _tokenizers(folder: Path) -> Sequence[Path]:
    write_tokenizer(["a red ball", "a blue box"], folder, max_length=6)
    return sorted(folder.iterdir())


def _read_tokenizer(path: Path) -> None:
    Tokenizer.load(path.parent)(["a red ball", "two dogs and a ☃"])


_PARTS = (models.TINY["clip"][f"{part}_config"] for part in ("text", "vision"))
_KEYS = sorted({key for content in (*models.TINY.values(), *_PARTS) for key in content})
_PICKLE = (
    *("ctorch._utils\n_rebuild_tensor_v2\n", "ctorch\nFloatStorage\n", "cos\nsystem\n", "storage"),
    *("(lp0\n", "I01\n", "}", "]", ")", "(", "u", "s", "t", "R", "Q", "b", "0", "1", "2", "."),
    *("q\x01", "h\x01", "X\x05\x00\x00\x00", "K\x05", "M\x05\x05", "state_dict", "data.pkl"),
)

PARSERS = (
    Parser(
        "safetensors",
        _safetensors,
        _read_file,
        words=("dtype", "shape", "data_offsets", "F32", "BF16", "F8_E4M3", "BOOL", "__metadata__"),
    ),
    Parser("pth", _pickled, _read_file, words=_PICKLE),
    Parser(
        "weights_index",
        _sharded,
        lambda path: read_tensors(path.parent),
        words=("weight_map", "metadata", "model-00001-of-00002.safetensors", "a.weight"),
    ),
    Parser("model_config", _configs, _read_config, share=2, words=_KEYS),
    Parser(
        "scheduler",
        _schedulers,
        _read_schedule,
        words=("num_train_timesteps", "beta_start", "beta_schedule", "linear", "trained_betas"),
    ),
    Parser(
        "preprocessor",
        _preprocessors,
        _read_preprocessor,
        share=2,
        words=("size", "shortest_edge", "crop_size", "image_mean", "image_std", "do_pad"),
    ),
    Parser(
        "tokenizer",
        _tokenizers,
        _read_tokenizer,
        share=2,
        words=("model_max_length", "<|endoftext|>", "a</w>", "unk_token", "added_tokens_decoder"),
    ),
)
