"""Fits a new subject's layer to his anatomy: reads what is known of all brains, and learns."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from glfa_jax import config
from glfa_jax.alignments import Fitted, Group
from glfa_jax.alignments.anatomy import ENOUGH, regression, validate_enough
from glfa_jax.alignments.protocol import Brains
from glfa_jax.data.store import Store
from glfa_jax.errors import InputError
from glfa_jax.stages.certainty import Certainty
from glfa_jax.stages.fitting import Material, maps_of_others
from glfa_jax.subject_alignment import displacements
from glfa_jax.training.processes import say

# Of all training subjects together; they show how much amplitude a displacement takes, no more.
_CLIPS = 240


class Learned(NamedTuple):
    """about: for config.json, `anatomy`, the names of the maps that it was learned from, and where
    there is reason for one a `warning`."""

    fitted: Fitted
    sure: Certainty
    about: dict[str, Any]


def told_by_anatomy(settings: config.Config, name: str, material: Material) -> Learned:
    """Raises InputError where somebody's anatomy, or the training subjects' displacement, is not
    known, and for too few training subjects."""
    others, method = settings.protocol.train_subjects, material.method
    validate_enough(len(others))
    maps = maps_in_common(material, others=others)
    say(
        f"== {name}: {method.name}, by {', '.join(maps)} of subject {material.subject} and of "
        f"{len(others)} training subjects"
    )
    about: dict[str, Any] = {"anatomy": maps}
    if len(others) < ENOUGH:
        about["warning"] = (
            f"{len(others)} training subjects are few to learn from, what anatomy tells may be "
            f"chance; {ENOUGH} or more are wanted."
        )
        say(f"warning: {about['warning']}")
    brains = Brains(
        _stacked(material.new, material.subject, maps),
        np.stack([_stacked(material.store, other, maps) for other in others]),
        _displacements(settings, material),
    )
    group = Group(_some_maps_of_others(settings, material), material.store.mask, brains=brains)
    nothing = np.zeros((0, *group.maps.shape[2:]), np.float32)
    options = {"settings": settings.adapt, "seed": settings.seed}
    fitted = method.fit(nothing, targets=None, group=group, **options)
    sure = Certainty({"left_out": regression(brains, group.mask).left_out}, {})
    return Learned(fitted, sure, about)


def maps_in_common(material: Material, *, others: tuple[str, ...]) -> list[str]:
    """Names of the maps of anatomy that the new subject and all of the others have."""
    stores = {material.subject: material.new} | dict.fromkeys(others, material.store)
    names = {who: list(store.anatomy(who)) for who, store in stores.items()}
    for who, own in names.items():
        if not own:
            raise InputError(
                f"{stores[who].path}: has no maps of the anatomy of subject {who}; lay them beside "
                "the scans, such as anat/sub-01_hemi-L_space-fsaverage5_curv.shape.gii, remove the "
                "store and prepare it again"
            )
    common = [name for name in names[material.subject] if all(name in x for x in names.values())]
    if not common:
        listed = "; ".join(f"{who}: {', '.join(own)}" for who, own in names.items())
        raise InputError(f"{material.new.path}: no map of anatomy is there of all ({listed})")
    return common


def _stacked(store: Store, subject: str, maps: list[str]) -> Float[ndarray, "k h w"]:
    found = store.anatomy(subject)
    return np.stack([found[name] for name in maps])


def _displacements(settings: config.Config, material: Material) -> Float[ndarray, "s h w 2"]:
    """Of the training subjects, as they were aligned with each other."""
    found = displacements(settings, material.encoder)
    if found is None or not np.ptp(found, axis=0).any():
        raise InputError(
            f"{settings.run_dir}: its alignment ({settings.alignment.method}) displaces all "
            "training subjects alike or none, so that anatomy has nothing to learn; train with "
            "alignment {method: warp, per_subject: true}"
        )
    return found


def _some_maps_of_others(
    settings: config.Config, material: Material
) -> Float[ndarray, "s n w height width"]:
    """Some of the training subjects', in the common space."""
    store, others = material.store, settings.protocol.train_subjects
    present = store.present("train", subjects=others)
    count = min(max(_CLIPS // len(others), 1), int(present.sum(0).min()))
    clips = [np.flatnonzero(own)[:count] for own in present.T]
    return maps_of_others(settings, material, clips=clips)
