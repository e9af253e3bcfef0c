"""What new maps are aligned to without labels: the training subjects' mean connectivity."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from glfa_jax import alignments, config
from glfa_jax.alignments.connectivity import parcels
from glfa_jax.alignments.warp import Warp, connectivity_of
from glfa_jax.alignments.warping import hemispheres
from glfa_jax.convert.directory import DirectoryError, read_tensors, write_tensors
from glfa_jax.convert.pretrained import Pretrained
from glfa_jax.data.store import Store
from glfa_jax.errors import InputError
from glfa_jax.subject_alignment import encoder_for

FOLDER = "connectivity"  # in that of what is kept of the training data
CLIPS = 240  # of each subject, as many as train.adapt takes of others


def its_store(settings: config.Config, *, identity: str) -> Store:
    """The store that a decoder was trained on, where it is here; identity: of that store.

    Raises InputError where it is not, or another lies there.
    """
    store = Store.open(settings.data.store)
    if store.attributes.identity != identity:
        raise InputError(f"{store.path}: holds other data than were trained on")
    return store


def mean_connectivity(
    settings: config.Config, encoder: Pretrained, *, store: Store
) -> Float[np.ndarray, "k height width"]:
    """Of the training subjects' maps in the common space, with as many parcels as warp takes.

    One subject's maps are in memory at a time.
    """
    subjects = settings.protocol.train_subjects
    drawn = parcels(hemispheres(store.mask), count=Warp.parcels)
    found = np.zeros(drawn.shape, np.float32)
    for subject in subjects:
        (clips,) = np.nonzero(store.present("train", subjects=[subject])[:, 0])
        maps = store.fmri("train", clips[:CLIPS], subjects=[subject])[:, 0].astype(np.float32)
        own = encoder_for(settings, encoder, subject=subject)
        aligned = np.asarray(alignments.align(own, maps))
        found += connectivity_of(aligned, drawn) / len(subjects)
    return found


def save(
    folder: Path,
    connectivity: Float[np.ndarray, "k height width"],
    *,
    mask: Bool[np.ndarray, "height width"],
) -> None:
    """Of the cortex, in 16 bits."""
    tensors = {"connectivity": connectivity[:, mask].astype(np.float16)}
    write_tensors(folder, tensors, config={}, filename="model.safetensors")


def load(
    folder: Path, *, mask: Bool[np.ndarray, "height width"]
) -> Float[np.ndarray, "k height width"] | None:
    """None where there is no such folder; raises DirectoryError for one that is damaged."""
    if not folder.is_dir():
        return None
    held = read_tensors(folder).get("connectivity")
    if held is None or held.ndim != 2 or held.shape[1] != mask.sum() or not np.isfinite(held).all():
        raise DirectoryError(f"{folder}: must hold connectivity of {mask.sum()} pixels")
    found = np.zeros((len(held), *mask.shape), np.float32)
    found[:, mask] = held
    return found
