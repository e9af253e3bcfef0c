"""Where a model comes from: a folder, an official checkpoint, a repository on a hub."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from glfa_jax import files, hub
from glfa_jax.convert import official
from glfa_jax.convert.directory import (
    DirectoryError,
    read_config,
    read_file,
    read_tensors,
    weight_files,
)
from glfa_jax.convert.mapping import ConversionError, Fit, Place, fit, unfitting
from glfa_jax.convert.pretrained import KINDS, PIPELINES, declared_class, described, pipeline_in

PIPELINE = "text_to_video"
ALL_KINDS = (*KINDS, PIPELINE)
_HUB = "hub:"
_REPOSITORY = re.compile(rf"{hub.NAME}(@[\w./-]+)?")
# Endings of official checkpoints: single files, without a configuration beside them.
CHECKPOINTS = (".pth", ".pt", ".ckpt", ".bin")


@dataclass(frozen=True)
class Source:
    """A model as stored: `tensors` are views of mapped files, under the names of our tables.

    `extra`: tensors that belong to the file but not to the model, an official checkpoint's decoder.
    """

    kind: str
    place: Path
    config: Mapping[str, Any]
    tensors: dict[str, np.ndarray]
    extra: dict[str, np.ndarray]
    files: list[Path]

    @cached_property
    def places(self) -> list[Place]:
        """Where each tensor goes. Raises ConversionError with all that does not fit."""
        found, problems = self.fit
        if problems:
            raise ConversionError(f"{self.place}: {unfitting(problems)}")
        return found

    @cached_property
    def shapes(self) -> dict:
        """The parameters of the model that the configuration describes."""
        return described(self.kind, self.config, place=self.place)[1]

    @cached_property
    def fit(self) -> Fit:
        """The tensors against that model, and a decoder beside them against it."""
        found, problems = fit(self.tensors, self.shapes, KINDS[self.kind].table(self.tensors))
        return Fit(found, problems + (self._misfits_of_decoder() if self.extra else []))

    def _misfits_of_decoder(self) -> list[str]:
        """A decoder that goes along is whole, of the right shapes, and has no strangers beside."""
        kind = "fmri_autoencoder"
        whole = official.from_official(kind, {**self.tensors, **self.extra})
        given = {key: self.config[key] for key in ("height", "width", "num_heads")}
        config = official.architecture(kind, whole, given=given, place=str(self.place))
        _, shapes = described(kind, config, place=self.place)
        problems = fit(whole, shapes, KINDS[kind].written).problems
        return [
            f"{what}: {official.INNER}{rest}"
            for what, _, rest in (problem.partition(": ") for problem in problems)
            if official.decoder_names(kind, [rest.split()[0]])
        ]


def locate(source: str | Path, *, allow_download: bool = False) -> Path:
    """The local path of a source; `hub:owner/name[@revision]` is downloaded.

    Without `hub:`, a repository is downloaded only where `allow_download` says so.
    """
    text = str(source)
    if not text.startswith(_HUB) and (place := Path(source)).exists():
        if not place.is_dir():
            files.validate_regular(place, error=DirectoryError)
        return place
    name = text.removeprefix(_HUB)
    if not _REPOSITORY.fullmatch(name):
        expected = "must be hub:owner/name" if name != text else "no such file or folder"
        raise DirectoryError(f"{text}: {expected}")
    if name == text and not allow_download:
        raise DirectoryError(
            f"{text}: no such file or folder; if a repository on the Hugging Face hub is meant, "
            f"allow its download with --allow-download or write {_HUB}{text}"
        )
    return _download(name)


def _download(name: str) -> Path:
    repository, _, named = name.partition("@")
    return hub.download(
        repository,
        revision=named or None,
        what=f"{_HUB}{name}: cannot be downloaded",
        wanted=_needed,
        error=DirectoryError,
    )


def _needed(names: list[str]) -> list[str]:
    """Configurations and weights, and of these no `.bin` where its folder holds safetensors."""
    folders = {name.rpartition("/")[0] for name in names if name.endswith(".safetensors")}
    kept = [name for name in names if name.endswith((".json", ".txt", ".safetensors", ".pth"))]
    kept += [n for n in names if n.endswith(".bin") and n.rpartition("/")[0] not in folders]
    return sorted(kept)


def open_source(
    kind: str,
    place: str | Path,
    *,
    variant: str | None = None,
    given: Mapping[str, Any] | None = None,
    drop_decoder: bool = False,
) -> Source:
    """Opens one model: a folder with config.json, or an official checkpoint.

    `variant`: "fp16" and the like. `given`: the architecture of an official checkpoint as far as
    its shapes do not tell it. `drop_decoder`: leave the autoencoder's decoder out.
    """
    place = Path(place)
    if not place.exists():
        raise DirectoryError(f"{place}: no such file or folder")
    if drop_decoder and kind not in official.KINDS:
        raise DirectoryError(f"{place}: a {kind} has no decoder to drop, only the fMRI models have")
    if place.is_dir():
        if given:
            raise DirectoryError(
                f"{place}: its architecture is in its config.json; --set {' '.join(given)} is for "
                "official checkpoints"
            )
        if kind == "fmri_encoder" and (place / "alignment").is_dir():
            raise DirectoryError(f"{place}: has another alignment than GLFA, which stays with us")
        config: Mapping[str, Any] = read_config(place)
        held = weight_files(place, variant=variant)
        tensors = dict(KINDS[kind].current_names(read_tensors(place, variant=variant)))
    else:
        if kind not in official.KINDS:
            raise DirectoryError(f"{place}: is a file; a {kind} model is read from its folder")
        if variant is not None:
            raise DirectoryError(f"{place}: is a file and has no variant {variant}")
        held, tensors = [place], _official(kind, place)
        config = {}
    # The encoder does not use the decoder; the autoencoder does, unless told to drop it.
    beside = kind == "fmri_encoder" or (kind == "fmri_autoencoder" and drop_decoder)
    decoder = official.decoder_names(kind, tensors) if beside else []
    extra = {name: tensors.pop(name) for name in decoder}
    if place.is_file():
        config = official.architecture(kind, tensors, given=given or {}, place=str(place))
    elif drop_decoder and kind == "fmri_autoencoder":
        config = {**config, "decoder": False}
    return Source(kind, place, config, tensors, {} if drop_decoder else extra, held)


def _official(kind: str, path: Path) -> dict[str, np.ndarray]:
    tensors = read_file(path)
    prefixed = sum(name.startswith("module.") for name in tensors)
    if prefixed:  # a prefix that all names have is off by now
        raise DirectoryError(
            f"{path}: {prefixed} of {len(tensors)} names begin with module., must be all or none"
        )
    held = official.kind_of(tensors)
    if held is None:
        raise DirectoryError(
            f"{path}: holds no official GLFA or fMRI-PTE checkpoint, its tensors are "
            f"{', '.join(sorted(tensors)[:3])} ..."
        )
    if held != kind and held == "fmri_autoencoder":
        raise DirectoryError(f"{path}: holds a {held}, asked for was a {kind}")
    return official.from_official(kind, tensors)


def guess_kind(place: str | Path) -> str | None:
    """The kind of what lies there, by its configuration or its tensors' names; None if unknown."""
    place = Path(place)
    if place.is_file():
        return official.kind_of(read_file(place))
    if (index := place / "model_index.json").is_file():
        named = files.read_object(index, error=DirectoryError)
        known = any(named.get(one.denoiser) == one.declared for one in PIPELINES)
        return PIPELINE if known else None
    config = read_config(place)
    named = declared_class(config)
    for kind, entry in KINDS.items():
        if named is not None and entry.torch_class == named:
            return kind
        if named is None and config.get("model_type") == entry.identity.get("model_type", ""):
            return kind
    if {"window", "hidden_tokens"} <= config.keys():
        return "fmri_encoder"
    if {"window", "clip_dim"} <= config.keys():
        return "lea"
    return "fmri_autoencoder" if {"latent", "patch_size"} <= config.keys() else None


def parts_of(kind: str, place: str | Path) -> Mapping[str, str]:
    """Subfolders and kinds of the models in a source; one model lies in the source itself."""
    if kind != PIPELINE:
        return {".": kind}
    found = pipeline_in(place)
    absent = {part for part in found.optional if not (Path(place) / part).exists()}
    return {part: inner for part, inner in found.parts.items() if part not in absent}
