"""Import and export: a model from one place to another, tensor after tensor.

Our model folders keep PyTorch's layout of every tensor, which is transposed when a model is loaded.
So both directions check that every tensor of the source and every leaf of the model occurs once,
and then copy, from mapped files into files that are written aside and renamed at the end.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from tqdm import tqdm

from glfa_jax import files
from glfa_jax.convert import official
from glfa_jax.convert.adapted import ADAPTED
from glfa_jax.convert.directory import (
    DirectoryError,
    copy_files,
    new_folder,
    require_new_folder,
    seal,
    write_tensors,
)
from glfa_jax.convert.lora import Lora, merging
from glfa_jax.convert.lora_file import load_lora
from glfa_jax.convert.pickled import write_pickled
from glfa_jax.convert.pretrained import (
    KINDS,
    build,
    find_tokenizer,
    own_config,
    pipeline_in,
    require_lone_transformer,
)
from glfa_jax.convert.sources import (
    CHECKPOINTS,
    PIPELINE,
    Source,
    locate,
    open_source,
    parts_of,
)
from glfa_jax.convert.stored import release
from glfa_jax.convert.stream import Change, unchanged
from glfa_jax.errors import InputError

DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "stored": None}
_INDEX = "model_index.json"
# What lies beside a model and goes along unchanged.
COMPANIONS = (
    *("preprocessor_config.json", "processor_config.json", "tokenizer.json", "vocab.json"),
    *("merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)


def import_model(
    kind: str,
    source: str | Path,
    target: str | Path,
    *,
    dtype: str = "stored",
    shard_size: int | None = None,
    variant: str | None = None,
    given: Mapping[str, Any] | None = None,
    drop_decoder: bool = False,
    lora: str | Path | None = None,
    lora_strength: float = 1.0,
    allow_download: bool = False,
) -> list[Source]:
    """Makes a folder that `pretrained.load` reads, or a generator for a pipeline.

    `dtype`: "float32", "bfloat16" or "stored". `shard_size`: bytes. `lora`: as of `load_lora`;
    `lora_strength` times its update is added to the denoiser. The rest as in `open_source` and
    `locate`. Returns what was read. Memory: the source's mapped pages in use, and one piece of a
    tensor; with a LoRA that itself and a few float32 copies of one tensor. Raises InputError with
    all that does not fit, and then leaves nothing.
    """
    require_new_folder(target)
    place = locate(source, allow_download=allow_download)
    options = {"variant": variant, "given": given, "drop_decoder": drop_decoder}
    sources = _open(kind, place, **options)
    found = {}
    if lora is not None:
        found = loras_of(locate(lora, allow_download=allow_download), sources)
    require_strength(lora_strength, lora=lora)
    changes = {part: merging(own, strength=lora_strength) for part, own in found.items()}
    with new_folder(target) as folder:
        for part, model in sources.items():
            _write(
                model,
                folder / part,
                dtype=DTYPES[dtype],
                shard_size=shard_size,
                change=changes.get(part, unchanged),
                companions=_companions(place) if part == "." else (),
            )
        if kind == PIPELINE:
            _copy_beside(place, folder)
    return list(sources.values())


def export_model(
    kind: str,
    source: str | Path,
    target: str | Path,
    *,
    dtype: str = "stored",
    shard_size: int | None = None,
    decoder: str | Path | None = None,
    module_prefix: bool = False,
) -> list[Source]:
    """Makes what PyTorch reads from one of our folders: the inverse of `import_model`.

    `target`: a folder for `from_pretrained`, or a `.pth` in the official layout. For the latter
    `decoder` names the folder of a fmri_autoencoder whose decoder goes along with an encoder,
    and `module_prefix` says whether names begin with `module.`.
    """
    if Path(target).suffix not in CHECKPOINTS:
        if decoder or module_prefix:
            raise InputError(
                f"{target}: a decoder and the prefix are for official checkpoints, *.pth"
            )
        return import_model(kind, source, target, dtype=dtype, shard_size=shard_size)
    if kind not in official.KINDS:
        raise InputError(f"{target}: must be a folder, a {kind} is no official checkpoint")
    if shard_size is not None or dtype != "stored":
        raise InputError(f"{target}: official checkpoints are one file of tensors as stored")
    if Path(target).exists():
        raise DirectoryError(f"{target}: exists already, must be a new file")
    (model,) = _open(kind, locate(source)).values()
    if model.config.get("subjects"):
        raise DirectoryError(
            f"{source}: has an alignment layer for every subject, official checkpoints hold one"
        )
    if decoder is not None:
        if kind != "fmri_encoder" or model.extra:
            raise DirectoryError(f"{source}: takes no decoder, it is none or has one")
        model = _with_decoder(model, Path(decoder))
    tensors = {place.name: model.tensors[place.name] for place in model.places} | model.extra
    named = official.to_official(kind, tensors, module_prefix=module_prefix)
    write_pickled(target, named, key="model")
    return [model]


def loras_of(lora: Path, sources: Mapping[str, Source]) -> dict[str, Lora]:
    """By part of the source, the LoRA of it: of the denoiser alone."""
    found = {
        part: load_lora(lora, params=model.shapes, kind=model.kind)
        for part, model in sources.items()
        if model.kind in ADAPTED
    }
    if not found:
        raise InputError(
            f"{lora}: a LoRA adapts {' or '.join(f'a {kind}' for kind in ADAPTED)}, alone or in a "
            f"{PIPELINE}"
        )
    return found


def require_strength(strength: float, *, lora: str | Path | None) -> None:
    """That of a LoRA is finite, and 1 where there is none."""
    if lora is None and strength != 1:
        raise InputError(f"a LoRA's strength is {strength}, but no LoRA is named")
    if not math.isfinite(strength):
        raise InputError(f"a LoRA's strength is {strength}, must be finite")


def _with_decoder(encoder: Source, folder: Path) -> Source:
    """The encoder's source with an autoencoder's decoder beside it."""
    autoencoder = open_source("fmri_autoencoder", folder)
    own = [place.name for place in autoencoder.places]  # raises what does not fit
    extra = official.decoder_of({name: autoencoder.tensors[name] for name in own})
    if not extra:
        raise DirectoryError(f"{folder}: has no decoder")
    whole = replace(encoder, extra=extra)
    if whole.fit.problems:
        listing = "\n  ".join(whole.fit.problems)
        raise DirectoryError(f"{folder}: its decoder fits no {encoder.place}:\n  {listing}")
    return whole


def _open(kind: str, place: Path, **options: Any) -> dict[str, Source]:
    """Every model of a source, checked; one error names all that is wrong with any."""
    if kind == PIPELINE and place.is_file():
        raise DirectoryError(f"{place}: is a file; a {PIPELINE} is read from its folder")
    sources, errors = {}, []
    for part, inner in parts_of(kind, place).items():
        try:
            sources[part] = open_source(inner, place / part, **options)
            sources[part].places  # noqa: B018 - raises what is wrong
        except InputError as error:
            errors.append(error)
    if kind == PIPELINE:
        schedule = pipeline_in(place).schedule
        for check in (require_lone_transformer, schedule, find_tokenizer, _find_index):
            try:
                check(place)
            except InputError as error:
                errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise DirectoryError("\n".join(map(str, errors)))
    return sources


def _find_index(pipeline: Path) -> None:
    index = pipeline / _INDEX
    if not index.is_file():
        raise DirectoryError(f"{pipeline}: holds no {_INDEX}, is no pipeline")
    files.read_object(index, error=DirectoryError)


def _write(
    model: Source,
    folder: Path,
    *,
    dtype: Any,
    shard_size: int | None,
    change: Change,
    companions: Iterable[Path],
) -> None:
    kind = KINDS[model.kind]
    tensors = {kind.written.torch_name(path): model.tensors[name] for name, path, _ in model.places}
    if kind.torch_class is None:
        config = own_config(build(model.kind, model.config))
    else:
        config = {**kind.identity, **model.config}
    tensors |= model.extra
    size = sum(tensor.nbytes for tensor in tensors.values())
    # Shown on terminals only.
    with tqdm(total=size, desc=model.kind, unit="B", unit_scale=True, disable=None) as bar:

        def done(tensor: np.ndarray) -> None:
            bar.update(tensor.nbytes)
            release(tensor)

        write_tensors(
            folder,
            tensors,
            config=config if dtype is None else _restated(config, np.dtype(dtype).name),
            filename=kind.filename,
            dtype=dtype,
            shard_size=shard_size,
            change=change,
            done=done,
            companions=companions,
        )


def _restated(config: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """The configuration with its statements of the tensors' dtype brought up to date."""

    def restated(key: str, value: Any) -> Any:
        if isinstance(value, dict):
            return _restated(value, dtype)
        return dtype if key in ("dtype", "torch_dtype") and isinstance(value, str) else value

    return {key: restated(key, value) for key, value in config.items()}


def _companions(place: Path) -> list[Path]:
    found = [place / name for name in COMPANIONS] if place.is_dir() else []
    return [path for path in found if path.is_file()]


def _copy_beside(pipeline: Path, folder: Path) -> None:
    """What a pipeline holds beside its models."""
    copy_files([pipeline / _INDEX], folder)
    for part in ("tokenizer", "scheduler"):
        (folder / part).mkdir()
        copy_files(
            sorted(path for path in (pipeline / part).iterdir() if path.is_file()), folder / part
        )
        seal(folder / part)


def parse_given(settings: list[str]) -> dict[str, Any]:
    """From `key=value` as on the command line."""
    given = {}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not (key and separator and value):
            raise InputError(f"--set {setting!r}: must read key=value")
        try:
            given[key] = files.parse_json(value)
        except ValueError:
            given[key] = value
    return given
