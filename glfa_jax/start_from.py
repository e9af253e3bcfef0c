"""The folders that stages start from: imported or released weights, known by their checksums.

    pretrain.start_from       an fMRI autoencoder, in place of random weights
    contrast.start_from       an fMRI encoder, in place of the pretrained autoencoder's
    cotrain.encoder_from      an fMRI encoder, with its alignment if any, in place of stage 1's
    cotrain.generator_from    the generator's trained part, in place of the foundation's

A stage of which nothing is used is left out. What a stage started from is written beside its
checkpoints, and it does not go on with anything else.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from glfa_jax import alignments, config, records, system
from glfa_jax.convert import pretrained
from glfa_jax.errors import InputError
from glfa_jax.files import CHECKSUMS, checksums_of, read_text, write_atomically
from glfa_jax.starting import typed

FILE = "start.json"
# Stages by the options that make them unnecessary.
_INSTEAD = {
    "pretrain": (("contrast", "start_from"), ("cotrain", "encoder_from")),
    "contrast": (("cotrain", "encoder_from"),),
}
# What fields of modules are called in a configuration.
_OPTIONS = {
    "height": "data.map_size",
    "width": "data.map_size",
    "window": "data.window",
    "tokens": "the number of the generator's tokens",
    "token_dim": "the width of the generator's tokens",
    "clip_dim": "the width of CLIP's joint space",
    "dim": "encoder.width",
    "hidden_tokens": "conditioning.hidden_tokens",
    "conditioning_heads": "conditioning.num_heads",
    "head": "conditioning.head",
    "alignment": "alignment.method",
    "kernel_size": "alignment.kernel_size",
    "global_part": "alignment.global_part",
    "local_part": "alignment.local_part",
    "subjects": "the number of alignment.per_subject layers",
}
_ALIGNMENT = frozenset({"alignment", "kernel_size", "global_part", "local_part", "subjects"})


class Start(NamedTuple):
    """Weights by the end of their path, for people, and by what they are."""

    name: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name}, sha256 {self.sha256[:16]}"


def unneeded(settings: config.Config, stage: str) -> str | None:
    """The option that makes a stage unnecessary, as nothing of it is used; None where it is."""
    if settings.method == "glfa":
        for section, option in _INSTEAD.get(stage, ()):
            if getattr(getattr(settings, section), option) is not None:
                return f"{section}.{option}"
    return None


def starts(settings: config.Config, stage: str) -> dict[str, Start]:
    """What a stage is to start from, by option; empty where no folder is given for it."""
    return {
        option: Start(config.called(folder), _checksum(place))
        for option, folder, place in _given(settings, stage)
    }


def told(settings: config.Config, stage: str) -> dict[str, Start]:
    """What a stage that was begun has started from."""
    path = system.stage_folder(settings, stage) / FILE
    if not path.is_file():
        return {}
    found = records.read(dict[str, dict[str, str]], path)
    return {option: Start(x["name"], x["sha256"]) for option, x in found.items()}


def write(settings: config.Config, stage: str, given: dict[str, Start]) -> None:
    """Lets `told` say it."""
    content = {option: start._asdict() for option, start in given.items()}
    path = system.stage_folder(settings, stage) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(content, indent=2) + "\n")


def validate(settings: config.Config, stage: str) -> None:
    """Rejects folders that a stage cannot start from, and others than it has started from.

    Of weights, headers are read and not their values. A folder that has served, of a finished
    stage, need not be there any more.
    """
    folder = system.stage_folder(settings, stage)
    finished = system.model_folder(settings, stage).is_dir()
    began = finished or (folder / "checkpoints").is_dir()
    then = told(settings, stage)
    given = {option: place for option, _, place in _given(settings, stage)}
    for option in sorted({*given, *then}):
        if option in given and not given[option].exists() and finished:
            continue
        if option in given:
            _validate_there(settings, given[option], stage, option)
            _VALIDATE[stage, option](settings, given[option], f"{stage}.{option}")
        now = _checksum(given[option]) if option in given else None
        before = then[option].sha256 if option in then else None
        if began and now != before:
            raise InputError(
                f"{stage}.{option}: {given.get(option, 'nothing')}, but {folder} started from "
                f"{then.get(option, 'nothing')}; use another run_dir or what it started from"
            )


def _validate_there(settings: config.Config, folder: Path, stage: str, option: str) -> None:
    if not folder.is_dir():
        kind = {"pretrain": "fmri_autoencoder", "contrast": "fmri_encoder"}.get(
            stage, "fmri_encoder" if option == "encoder_from" else settings.generator
        )
        raise InputError(
            f"{stage}.{option}: {folder} is not there; {typed('glfa_jax.convert')} import --kind "
            f"{kind} makes it of released weights; null starts without"
        )


def _given(settings: config.Config, stage: str) -> list[tuple[str, Path, Path]]:
    """Options that name folders, these, and where in them the weights lie."""
    section, found = getattr(settings, stage), []
    for option in sorted(config.STARTS):
        if (folder := getattr(section, option, None)) is not None:
            part = system.generator(settings).part if option == "generator_from" else ""
            found.append((option, folder, folder / part))
    return found


def _checksum(folder: Path) -> str:
    """Of the folder's list of checksums, or of the one that it would have, and of those in it."""
    lists = {folder / CHECKSUMS, *folder.rglob(CHECKSUMS)}
    texts = (read_text(x) if x.is_file() else checksums_of(folder) for x in sorted(lists))
    return hashlib.sha256("".join(texts).encode()).hexdigest()


def _validate_autoencoder(settings: config.Config, folder: Path, key: str) -> None:
    theirs = pretrained.configured("fmri_autoencoder", folder)
    if not theirs.decoder:
        raise InputError(f"{key}: {folder} has no decoder; import it without --drop-decoder")
    _validate_alike(theirs, system.autoencoder(settings), folder, key)
    pretrained.validate_weights("fmri_autoencoder", folder)


def _validate_encoder(settings: config.Config, folder: Path, key: str) -> None:
    """Without its alignment, whatever that is, where it is to be left out."""
    theirs = alignments.configured_encoder(folder)
    aligned = theirs.aligned and key == "cotrain.encoder_from"
    clip = pretrained.configured("clip", settings.foundation / system.CLIP)
    ours = system.fmri_encoder(
        settings,
        clip_dim=clip.projection_dim,
        **system.condition_of(settings, system.generator(settings)),
        dropout=0.0,
        aligned=aligned,
    )
    _validate_alike(theirs, ours, folder, key, but=frozenset() if aligned else _ALIGNMENT)
    pretrained.validate_weights("fmri_encoder", folder)


def _validate_generator(settings: config.Config, folder: Path, key: str) -> None:
    system.generator(settings).validate_weights(model=folder.parent, text_encoder=False)


_VALIDATE = {
    ("pretrain", "start_from"): _validate_autoencoder,
    ("contrast", "start_from"): _validate_encoder,
    ("cotrain", "encoder_from"): _validate_encoder,
    ("cotrain", "generator_from"): _validate_generator,
}


def _validate_alike(
    theirs: Any, ours: Any, folder: Path, key: str, *, but: frozenset[str] = frozenset()
) -> None:
    """Rejects another architecture than the configured one, naming the options that differ."""
    there, here = (
        pretrained.own_config(x) | {"alignment": getattr(x, "alignment", None)}
        for x in (theirs, ours)
    )
    differ = {
        _OPTIONS.get(name, f"encoder.{name}"): f"{there[name]} there and {here[name]} here"
        for name in there
        if name not in but and there[name] != here[name]
    }
    if differ:
        listing = ", ".join(f"{option} is {values}" for option, values in differ.items())
        raise InputError(f"{key}: {folder} has another architecture, {listing}")
