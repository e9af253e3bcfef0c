"""How scans become maps, kept beside a model."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool

from glfa_jax import config
from glfa_jax.convert.directory import DirectoryError, read_config, read_tensors, write_tensors
from glfa_jax.data import DataError
from glfa_jax.data.drawing import Drawing
from glfa_jax.data.layouts import cleaning_of
from glfa_jax.data.reuse import cleaning_done
from glfa_jax.data.store import Store
from glfa_jax.errors import InputError

FOLDER = "drawing"  # in that of what is kept of the training data


def save(folder: Path, drawing: Drawing) -> None:
    """Safetensors, and the rest in config.json."""
    tensors, about = drawing.arrays(), drawing.described()
    write_tensors(folder, tensors, config=about, filename="model.safetensors")


def load(folder: Path, *, mask: Bool[np.ndarray, "height width"]) -> Drawing | None:
    """None where there is no such folder; raises DirectoryError for one that is damaged."""
    if not folder.is_dir():
        return None
    try:
        return Drawing.read(read_config(folder), read_tensors(folder), mask=mask)
    except DirectoryError:
        raise
    except InputError as error:
        raise DirectoryError(f"{folder}: {error}") from None


def of_store(data: config.Data, store: Store) -> Drawing:
    """As the maps of a store were drawn; raises DataError where its surfaces are not there."""
    cleaning = cleaning_done(store)
    if isinstance(cleaning, dict):
        raise DataError(f"{store.path}: was cleaned by another version, with {cleaning}")
    return made(data, cleaning=cleaning, mask=store.mask)


def made(
    data: config.Data,
    *,
    mask: Bool[np.ndarray, "height width"],
    cleaning: config.Cleaning | None = None,
) -> Drawing:
    """By the surfaces that a configuration names, cleaned as it says if not told; raises DataError
    where these are not there, or others than those of the mask."""
    drawing, own = Drawing.of(data, cleaning=cleaning or cleaning_of(data))
    if not np.array_equal(own, mask):
        raise DataError("data.surfaces, data.region: draw another part of the cortex than the maps")
    return drawing


def anew(data: config.Data, *, mask: Bool[np.ndarray, "height width"]) -> Drawing:
    """For a decoder that keeps none: as its store was drawn, or as its configuration says where
    that is not there either; raises DataError as `made`."""
    if data.store.exists():
        return of_store(data, Store.open(data.store))
    return made(data, mask=mask)
