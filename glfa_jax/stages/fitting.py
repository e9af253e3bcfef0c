"""The maps that a new subject's layer is fitted to, read from the stores."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from glfa_jax import alignments, config
from glfa_jax.alignments import Group, Layer
from glfa_jax.alignments.protocol import aligned_in_parts, how_far
from glfa_jax.convert.pretrained import Pretrained
from glfa_jax.data.layouts import Split
from glfa_jax.data.store import Store
from glfa_jax.subject_alignment import encoder_for

# Of each training subject, beside a new one's clips that nobody else saw: 8 minutes of the
# benchmark's. Bounds the memory; what areas have in common over time hardly changes with more.
_OTHERS = 240
_FEW = 30  # a minute of the benchmark's, with which connectivity is still noise
_TOGETHER = 16  # clips that are read at a time where all need not be in memory


class Shared(NamedTuple):
    """Samples of the same clips in two stores, place by place: the others', the new subject's."""

    theirs: np.ndarray
    own: np.ndarray


class Material(NamedTuple):
    """What a layer is fitted to: clips of a new subject and of others, and their encoder."""

    store: Store
    new: Store
    subject: str
    data: str
    shared: Shared  # unless the data are paired, only `own` counts
    encoder: Pretrained
    method: alignments.Alignment

    @property
    def start(self) -> dict | None:
        """The layer that all training subjects share, if they do and it is of this method."""
        layer = alignments.layers_of(self.encoder).get(alignments.SHARED)
        return layer.params if layer is not None and layer.method == self.method else None

    def parts(self) -> Iterator["Material"]:
        """Some clips at a time."""
        for start in range(0, len(self.shared.own), _TOGETHER):
            some = slice(start, start + _TOGETHER)
            yield self._replace(shared=Shared(self.shared.theirs[some], self.shared.own[some]))


class Maps(NamedTuple):
    """In memory: the new subject's maps, what they are drawn to if the data are paired, and the
    training subjects' in the common space."""

    own: Float[np.ndarray, "n w height width"]
    targets: Float[np.ndarray, "n w height width"] | None
    group: Group

    def part(self, clips: slice) -> "Maps":
        """Of some clips; the group's, where they are of other clips, stay all."""
        if self.targets is None:
            return self._replace(own=self.own[clips])
        group = self.group._replace(maps=self.group.maps[:, clips])
        return Maps(self.own[clips], self.targets[clips], group)


def read_maps(settings: config.Config, material: Material) -> Maps:
    """Of all clips of the material."""
    store, new, paired = material.store, material.new, material.data == "paired"
    others = settings.protocol.train_subjects
    present = store.present("train", subjects=others)
    clips = [material.shared.theirs] * len(others) if paired else _unpaired(material, present)
    group = maps_of_others(settings, material, clips=clips)
    targets = None
    if paired:
        shares = present[material.shared.theirs].astype(np.float32)
        targets = np.einsum("ns,sn...->n...", shares / shares.sum(1, keepdims=True), group)
    split: Split = "test" if material.data == "unlabelled-test" else "train"
    own = new.fmri(split, material.shared.own, subjects=[material.subject])[:, 0]
    return Maps(own.astype(np.float32), targets, Group(group, store.mask, material.start))


def maps_of_others(
    settings: config.Config, material: Material, *, clips: Sequence[np.ndarray]
) -> Float[np.ndarray, "s n w height width"]:
    """Training subjects' maps in the common space; clips: of each, as many."""
    store, others = material.store, settings.protocol.train_subjects
    return np.stack(
        [
            alignments.align(
                encoder_for(settings, material.encoder, subject=other),
                store.fmri("train", theirs, subjects=[other])[:, 0].astype(np.float32),
            )
            for other, theirs in zip(others, clips, strict=True)
        ]
    )


def _unpaired(material: Material, present: Bool[np.ndarray, "clips s"]) -> list[np.ndarray]:
    """As many clips of each training subject; of those that the new one's layer is not fitted to,
    where these are not too few, so that nothing is gained by clips that both saw."""
    free = np.ones(len(present), bool)
    if material.data == "unlabelled":
        seen = set(np.asarray(material.new.attributes.clips["train"])[material.shared.own])
        free = np.array([clip not in seen for clip in material.store.attributes.clips["train"]])
    usable = present & free[:, None]
    if usable.sum(0).min() < min(_FEW, len(material.shared.own)):
        usable = present
    count = min(_OTHERS, int(usable.sum(0).min()))
    return [np.flatnonzero(own)[:count] for own in usable.T]


def moved(settings: config.Config, material: Material, layer: Layer) -> dict[str, float]:
    """How far a layer moved the maps that it was fitted to in steps, as `Fitted.report` has it."""
    mask = material.store.mask
    module = layer.method.layer(mask.shape)

    def clips():
        for part in material.parts():
            maps = read_maps(settings, part)
            assert maps.targets is not None  # what descends a gradient is fitted to pairs
            aligned = aligned_in_parts(module, layer.params, maps.own)
            yield from zip(maps.own, aligned, maps.targets, strict=True)

    return how_far(clips(), mask=mask)
