"""The library: a trained decoder as an object, and the steps around it as functions.

The commands stand on the same parts; what they write, this reads, and the other way round.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glfa_jax import config, hub
from glfa_jax.data.store import Store
from glfa_jax.decoder import Decoder
from glfa_jax.errors import InputError
from glfa_jax.preparation import prepare as prepare_data
from glfa_jax.trained.folder import is_one, read
from glfa_jax.trained.run import of_run


def load(
    path: str | Path,
    *,
    adapted_minutes: float | None = None,
    method: str | None = None,
    data: str | None = None,
    encoder: bool = False,
) -> Decoder:
    """A trained decoder.

    path: the folder of a finished run (`run_dir`), or one that `export` made. Relative paths in a
        run's configuration, such as `foundation`, count from the current folder.
    adapted_minutes: with the alignment layers that train.adapt fitted to so many minutes of new
        subjects; of a run. An exported decoder has those that it was exported with.
    method, data, encoder: what train.adapt was asked for, where the run's configuration does not
        say it; encoder: with the encoders that were trained behind the layers.

    Raises InputError where the folder holds neither, the run is not finished, or a file is damaged.
    """
    path = Path(path)
    if is_one(path):
        return Decoder(**vars(read(path)))
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; must be a run, or a decoder made by export")
    if not (path / "config.yaml").is_file():
        raise InputError(f"{path}: holds no config.yaml of a run and no decoder.json of an export")
    settings = config.load(path / "config.yaml").model_copy(update={"run_dir": path})
    chosen = settings.adapt.choosing(method=method, data=data, encoder=encoder)
    if chosen and adapted_minutes is None:
        raise InputError(
            "method, data, encoder: say how new subjects were fitted, must be left out without "
            "adapted_minutes"
        )
    settings = config.overridden(settings, chosen)
    return Decoder(**vars(of_run(settings, adapted_minutes=adapted_minutes)))


def from_pretrained(
    source: str | Path, *, revision: str | None = None, token: str | None = None
) -> Decoder:
    """A decoder from a folder, or by its name `owner/name` from the Hugging Face hub.

    revision: branch, tag or commit. token: of an account, for what is private.
    """
    path, name = Path(source), str(source)
    if not path.exists():
        hub.validate_name(name)
        what = f"{name}: is no folder here and cannot be downloaded"
        path = hub.download(name, revision=revision, what=what, token=token)
    return load(path)


def prepare(
    settings: config.Config | Mapping[str, Any] | str | Path, *, progress: bool = True
) -> Store:
    """The prepared store of a configuration: made from the scans and clips, or the one that is
    there already.

    settings: a configuration, its options as a mapping, or the path of its YAML file.

    Raises ConfigError for options that cannot be, DataError for files that cannot be read.
    """
    return prepare_data(as_config(settings).data, progress=progress)


def as_config(given: config.Config | Mapping[str, Any] | str | Path) -> config.Config:
    """A configuration from itself, from its options, or from the path of its YAML file."""
    if isinstance(given, config.Config):
        return given
    if isinstance(given, Mapping):
        return config.of(given)
    return config.load(given)
