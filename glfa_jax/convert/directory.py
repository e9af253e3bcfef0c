"""Model folders as diffusers and transformers lay them out: weights beside a config.json.

Weights are safetensors files, or the older pickled `.bin`; one file, or shards that an index names.
Reading maps the files into memory, so tensors cost nothing until they are used, and
`stored.release` gives back what their use cost. What we write carries checksums, which reading
compares.
"""

import json
import math
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from glfa_jax import files
from glfa_jax.convert.pickled import read_pickled, state_dict
from glfa_jax.convert.stream import (
    DTYPES,
    Change,
    shards,
    stored_dtype,
    unchanged,
    write_safetensors,
)
from glfa_jax.errors import InputError

# What weights are called, by ending.
_STEMS = {
    "safetensors": ("model", "diffusion_pytorch_model"),
    "bin": ("pytorch_model", "diffusion_pytorch_model"),
}
_CONFIG = "config.json"
# Bytes that tensors may have which repeat what is stored, or share it, however small the file.
_REPEATED = 2**20
# What transformers demands of a file that it is to load.
PYTORCH_METADATA = {"format": "pt"}


class DirectoryError(InputError):
    """A model folder cannot be read; the message names the file and what is wrong with it."""

    listed = True


def read_config(folder: str | Path) -> dict[str, Any]:
    """The folder's config.json."""
    folder = Path(folder)
    if not (folder / _CONFIG).exists() and (folder / "model_index.json").is_file():
        raise DirectoryError(
            f"{folder}: is a pipeline of several models in subfolders; name one of those, or "
            "state the kind text_to_video"
        )
    return files.read_object(folder / _CONFIG, error=DirectoryError)


def weight_files(folder: str | Path, *, variant: str | None = None) -> list[Path]:
    """The file that holds the weights, or the index and then the shards that it names.

    `variant`: "fp16" finds `model.fp16.safetensors` and the like, and the three spellings of an
    index that diffusers and transformers have had. Where there are both kinds of files, safetensors
    are taken.
    """
    folder = Path(folder)
    infix = "" if variant is None else f".{variant}"
    looked: list[str] = []
    for suffix, stems in _STEMS.items():
        single = [folder / f"{stem}{infix}.{suffix}" for stem in stems]
        index = [
            folder / name
            for stem in stems
            for name in dict.fromkeys(
                (
                    f"{stem}.{suffix}.index{infix}.json",
                    f"{stem}{infix}.{suffix}.index.json",
                    f"{stem}.{suffix}{infix}.index.json",
                )
            )
        ]
        looked += [path.name for path in (*single, *index)]
        found = [path for path in (*single, *index) if path.is_file()]
        if len(found) > 1:
            raise DirectoryError(
                f"{folder}: holds {' and '.join(path.name for path in found)}, must hold exactly "
                "one of them"
            )
        if found:
            return found if found[0] in single else [found[0], *_shards_of(found[0])]
    raise DirectoryError(
        f"{folder}: holds no weights, must hold exactly one of {', '.join(looked)}"
        + _hint(folder, variant)
    )


def _shards_of(index: Path) -> list[Path]:
    places = list(_weight_map(index).values())
    if not places:
        raise DirectoryError(f"{index}: its weight_map names no files")
    for name in places:
        if not (name and isinstance(name, str) and Path(name).name == name):
            raise DirectoryError(
                f"{index}: its weight_map names {name!r}, must name files of the same folder"
            )
    names = sorted(set(places))
    missing = sorted(set(names) - {path.name for path in index.parent.iterdir() if path.is_file()})
    if missing:
        raise DirectoryError(
            f"{index.parent}: {index.name} names missing files: {_listed(missing)}"
        )
    return [index.parent / name for name in names]


def _weight_map(index: Path) -> dict[str, str]:
    places = files.read_object(index, error=DirectoryError).get("weight_map")
    if not isinstance(places, dict):
        raise DirectoryError(f"{index}: has no weight_map")
    return places


def _listed(names: Iterable[str]) -> str:
    """Others' names may hold line breaks."""
    return ", ".join(n if n.isprintable() else repr(n) for n in names)


def _hint(folder: Path, variant: str | None) -> str:
    """At `model.fp16.safetensors` where `model.safetensors` was looked for, or lone shards."""
    held, lone = _variants(folder)
    held -= {variant, ""}
    if not held:
        return "; there are shards, but no index of them" if lone else ""
    return (
        f"; there is the variant {' and '.join(sorted(held))}, which must be asked for: "
        f"--variant {min(held)}"
    )


def _variants(folder: Path) -> tuple[set[str], bool]:
    """The variants that a folder holds weights of, "" for plain ones; whether any are shards."""
    stems = {stem for stems in _STEMS.values() for stem in stems}
    held: set[str] = set()
    lone = False
    for path in folder.glob("*"):
        stem, *endings = re.sub(r"-\d+-of-\d+", "", path.name).split(".")
        if stem in stems and _STEMS.keys() & endings and endings[-1] in (*_STEMS, "json"):
            held |= {*endings} - {*_STEMS, "index", "json"} or {""}
            lone |= "-of-" in path.name
    return held, lone


def lone_variant(folder: str | Path) -> str | None:
    """The one variant, such as fp16, of which a folder holds weights in place of plain ones.

    None where there are plain ones, or none at all. Raises DirectoryError where there are several.
    """
    held, _ = _variants(Path(folder))
    if not held or "" in held:
        return None
    if len(held) > 1:
        raise DirectoryError(
            f"{folder}: holds weights of the variants {' and '.join(sorted(held))}, must hold "
            "plain ones or those of one variant"
        )
    return held.pop()


def read_tensors(
    folder: str | Path, *, variant: str | None = None, checksums: bool = True
) -> dict[str, np.ndarray]:
    """All tensors of a folder by name, from one file or from the shards that an index names.

    `variant` as in `weight_files`. Where the folder carries checksums, they are compared, which
    reads all of it; without `checksums`, headers alone are read until a tensor is used.
    """
    first, *rest = weight_files(folder, variant=variant)
    if checksums:
        files.verify_checksums(first.parent, error=DirectoryError)
    if not rest:
        return read_file(first)
    places = _weight_map(first)
    tensors: dict[str, np.ndarray] = {}
    for shard in rest:
        held = read_file(shard)
        promised = {name for name, place in places.items() if place == shard.name}
        if promised != held.keys():
            raise DirectoryError(
                f"{shard}: differs from {first.name} in tensors "
                f"{_listed(sorted(promised ^ held.keys()))}"
            )
        tensors |= held
    return tensors


def write_tensors(
    folder: str | Path,
    tensors: Mapping[str, np.ndarray],
    *,
    config: Mapping[str, Any],
    filename: str,
    metadata: Mapping[str, str] = PYTORCH_METADATA,
    dtype: Any = None,
    shard_size: int | None = None,
    change: Change = unchanged,
    done: Callable[[np.ndarray], None] = lambda tensor: None,
    companions: Iterable[Path] = (),
) -> None:
    """Writes safetensors, config.json and checksums, all aside first and then renamed.

    `dtype`: of the stored floating-point tensors, their own when None. `shard_size`: bytes above
    which a file is split. `change`, `done`: as of `write_safetensors`. `companions`: files that go
    along as they are.
    """
    folder = Path(folder)
    parts = shards(tensors, filename=filename, size=shard_size, dtype=dtype)
    texts = {_CONFIG: dict(config)}
    if len(parts) > 1:
        places = {name: file for file, part in parts.items() for name in part}
        total = sum(t.size * stored_dtype(t, dtype).itemsize for t in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": places}
        texts[f"{filename}.index.json"] = index
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    aside = files.aside(folder / filename)
    try:
        with files.writing(folder):
            aside.mkdir()
        for name, part in parts.items():
            with files.writing(folder / name):
                write_safetensors(
                    aside / name, part, metadata=metadata, dtype=dtype, change=change, done=done
                )
        for name, content in texts.items():
            with files.writing(folder / name):
                (aside / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
        copy_files(companions, aside)
        seal(aside)
        with files.writing(folder):
            # The checksums last: stopped in between, the folder is rejected and not mixed up.
            for path in sorted(aside.iterdir(), key=lambda path: path.name == files.CHECKSUMS):
                path.replace(folder / path.name)
    finally:
        files.remove(aside)


def copy_files(paths: Iterable[Path], folder: Path) -> None:
    for path in paths:
        with files.writing(folder / path.name):
            shutil.copyfile(path, folder / path.name)


def seal(folder: Path) -> None:
    """Writes the checksums of a folder's files, which whoever reads them compares."""
    with files.writing(folder / files.CHECKSUMS):
        (folder / files.CHECKSUMS).write_text(files.checksums_of(folder), encoding="utf-8")


def require_new_folder(target: str | Path) -> None:
    """For an early rejection where much is done, or downloaded, before anything is written."""
    target = Path(target)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise DirectoryError(f"{target}: exists already, must be a new or an empty folder")
    if target.exists() and target.samefile(Path.cwd()):  # cannot be renamed to
        raise DirectoryError(f"{target}: is the current folder, must be a new or another empty one")
    if target.is_mount():
        raise DirectoryError(f"{target}: is a mount point, must be a new folder: name one in it")


@contextmanager
def new_folder(target: str | Path) -> Iterator[Path]:
    """A folder to fill, which becomes `target` when all went well and else leaves no trace.

    `target` must not exist, or be an empty folder.
    """
    require_new_folder(target)
    target = Path(target).resolve()  # a link to an empty folder stays, and the folder is filled
    made = [folder for folder in target.parents if not folder.exists()]
    try:
        with files.whole_folder(target) as aside:
            yield aside
    except BaseException:
        for folder in made:
            with suppress(OSError):  # another's, or not made
                folder.rmdir()
        raise


def read_file(path: Path) -> dict[str, np.ndarray]:
    """Views of the mapped file. Writing to one changes memory only."""
    with files.reading(path, "safetensors file", error=DirectoryError):
        if path.suffix != ".safetensors":
            tensors = state_dict(read_pickled(path), path=path)
            size = sum(tensor.nbytes for tensor in tensors.values())
            if size > max(_REPEATED, files.EXPANSION * path.stat().st_size):
                raise DirectoryError(
                    f"{path}: its tensors repeat what it stores: they are {files.EXPANSION} times "
                    "as large as the file, or more"
                )
            return tensors
        return _views(path)


def _views(path: Path) -> dict[str, np.ndarray]:
    with safe_open(path, framework="numpy"):
        pass  # checks that the header fits the file, without gaps and overlaps
    content = np.memmap(path, np.uint8, mode="c").view(np.ndarray)
    start = 8 + int(content[:8].view("<u8")[0])
    header = files.parse_json(content[8:start].tobytes())
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] not in DTYPES:
            raise DirectoryError(f"{path}: {name} has the unsupported dtype {entry['dtype']}")
        dtype = np.dtype(DTYPES[entry["dtype"]])
        count, offset = math.prod(entry["shape"]), start + entry["data_offsets"][0]
        # Empty ones may lie at the end, and have lengths that no array has.
        flat = np.frombuffer(content.data, dtype, count, offset) if count else np.empty(0, dtype)
        tensors[name] = flat.reshape(entry["shape"])
    return tensors
