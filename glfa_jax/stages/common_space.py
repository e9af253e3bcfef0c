"""Aligns the training subjects with each other before anything is trained on their maps.

For methods that are fitted to maps and not trained in stage 2, such as `alignment.method: warp`;
of those that stage 2 trains in part, such as `composed` of warp and glfa, for the other part.
Every training subject gets a layer, fitted to what all of them have in common; pretraining and
stage 1 then see maps that went through it, and from stage 2 on it lies in front of the encoder.
Nobody else's maps are used: who is decoded later is new to all of it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import jax
import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from glfa_jax import alignments, config, system
from glfa_jax.alignments import Layer, load_layer
from glfa_jax.alignments.protocol import aligned_in_parts
from glfa_jax.alignments.training_subjects import fit_training_subjects
from glfa_jax.convert.directory import read_config
from glfa_jax.data.layouts import Split
from glfa_jax.data.store import Store
from glfa_jax.errors import InputError
from glfa_jax.stages.running import store_model
from glfa_jax.training.processes import is_main, say, together

NAME = "alignment"


def needed(settings: config.Config) -> bool:
    """Whether the method, or a part of it, is fitted to the training subjects beforehand."""
    return alignments.configured(settings).beforehand is not None


def layers(settings: config.Config, store: Store) -> dict[str, Layer]:
    """Of every training subject; fitted and stored where they are not there yet.

    Raises InputError for layers that were fitted to other data.
    """
    folder = system.model_folder(settings, NAME)
    if not folder.is_dir():
        fit(settings, store)
    found = {}
    for subject in settings.protocol.train_subjects:
        place = folder / subject
        if read_config(place).get("data") != store.attributes.identity:
            raise InputError(
                f"{place}: was fitted to other data than are in {store.path}; remove "
                f"{folder.parent} and the stages after it to fit it anew"
            )
        found[subject] = load_layer(place, maps_shape=store.mask.shape)
    return found


def fit(settings: config.Config, store: Store) -> None:
    """Fits the layers to clips that all have seen, or where the method needs no pairs and there
    are none, to those that each has."""
    method, subjects = alignments.configured(settings).beforehand, settings.protocol.train_subjects
    assert method is not None  # as `needed` says
    present = store.present("train", subjects=subjects)
    (shared,) = np.nonzero(present.all(1))
    if not len(shared) and method.needs == "paired":
        raise InputError(f"{store.path}: no training clip was seen by all of {', '.join(subjects)}")
    if is_main():
        say(f"== {NAME}: {method.name}, of {', '.join(subjects)} with each other")
        fewest = int(present.sum(0).min())
        clips = [shared if len(shared) else np.flatnonzero(own)[:fewest] for own in present.T]
        maps = np.stack(
            [
                store.fmri("train", seen, subjects=[subject])[:, 0].astype(np.float32)
                for subject, seen in zip(subjects, clips, strict=True)
            ]
        )
        fitted = fit_training_subjects(
            method,
            maps,
            mask=store.mask,
            paired=len(shared) > 0,
            settings=settings.adapt,
            seed=settings.seed,
        )

    def write(folder):
        about = {"data": store.attributes.identity}
        for subject, params in zip(subjects, fitted, strict=True):
            place = folder / subject
            method.save(place, params, maps_shape=store.mask.shape, about=about)

    store_model(settings, NAME, write)
    together("training subjects are aligned")


def in_common_space(settings: config.Config, store: Store) -> Store:
    """The prepared data as pretraining and stage 1 see them: where the method is fitted to the
    training subjects beforehand, with their maps aligned."""
    if not needed(settings):
        return store
    if settings.protocol.pretraining != "strict":
        raise InputError(
            "protocol.pretraining: must be strict with alignment.method "
            f"{settings.alignment.method}, as only training subjects have a layer before training"
        )
    found = layers(settings, store)
    digest = hashlib.sha256(store.attributes.identity.encode())
    for layer in found.values():
        for leaf in jax.tree.leaves(layer.params):
            digest.update(np.ascontiguousarray(leaf).tobytes())
    attributes = replace(store.attributes, identity=digest.hexdigest())
    return AlignedStore(store.path, attributes, store._arrays, found)


@dataclass(frozen=True)
class AlignedStore(Store):
    """A store whose maps of training subjects come through their layers."""

    layers: Mapping[str, Layer] = field(default_factory=dict, repr=False)

    def fmri(
        self, split: Split, clips: Sequence[int] | ndarray, *, subjects: Sequence[str]
    ) -> Float[ndarray, "b s w h w2"]:
        found = super().fmri(split, clips, subjects=subjects)
        for i, subject in enumerate(subjects):
            found[:, i] = self._aligned(found[:, i], subject)
        return found

    def volumes(
        self,
        split: Split,
        *,
        subject: str,
        clips: Int[ndarray, " b"],
        positions: Int[ndarray, " b"],
    ) -> Float[ndarray, "b h w"]:
        found = super().volumes(split, subject=subject, clips=clips, positions=positions)
        return self._aligned(found, subject)

    def average(self, *, subjects: Sequence[str]) -> Float[ndarray, "w h w2"]:
        each = [self._aligned(super(AlignedStore, self).average(subjects=[s]), s) for s in subjects]
        counts = self.present("train", subjects=subjects).sum(axis=0)
        return np.average(np.stack(each), axis=0, weights=counts).astype(np.float32)

    def _aligned(self, maps: Float[ndarray, "*b h w"], subject: str) -> Float[ndarray, "*b h w"]:
        layer, (height, width) = self.layers[subject], maps.shape[-2:]
        aligned = aligned_in_parts(layer.method.layer((height, width)), layer.params, maps)
        return aligned.astype(maps.dtype)
