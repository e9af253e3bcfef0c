"""Which alignment layer a subject's maps go through: the shared one, its own, or a fitted one.

Models number their subjects; here the numbers meet the names, in the order of
`protocol.train_subjects`, and the layers that `stages.adapt` left in the run's folders are found.
"""

import json
from pathlib import Path, PurePosixPath

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from glfa_jax import system
from glfa_jax.alignments import (
    SHARED,
    Layer,
    align,
    layers_of,
    load_encoder,
    load_layer,
    minutes_for_strangers,
    with_layer,
)
from glfa_jax.alignments.identity import Identity
from glfa_jax.cli import command_line
from glfa_jax.config import Config
from glfa_jax.convert.directory import read_config
from glfa_jax.convert.pretrained import Pretrained
from glfa_jax.data.store import Store
from glfa_jax.errors import InputError
from glfa_jax.starting import typed
from glfa_jax.training.checkpoints import read_done
from glfa_jax.training.loop import check_unchanged

ENCODER = "encoder"  # beside a fitted layer, where the encoder was trained behind it


def fitted_stage(settings: Config, *, subject: str, minutes: float) -> str:
    """The stage, and its folder in the run's, that fits a layer to so much of a subject."""
    name = f"{subject}-{system.fit_name(settings, minutes)}"
    return str(PurePosixPath("adapt", system.of_store(settings), name))


def fitted_folder(settings: Config, *, subject: str, minutes: float) -> Path:
    """Where the layer lies that train.adapt fitted to so much of a subject."""
    stage = fitted_stage(settings, subject=subject, minutes=minutes)
    return system.model_folder(settings, stage)


def validate_layer(settings: Config, *, subject: str) -> None:
    """Rejects a subject whose maps the run has no layer for; reads nothing but small files."""
    minutes, trained = settings.evaluation.adapted_minutes, settings.protocol.train_subjects
    if not settings.aligned and minutes is not None and settings.adapt.method is None:
        raise InputError(
            "evaluation.adapted_minutes: this run has no alignment to be fitted; name a method "
            "(adapt.method)"
        )
    if subject in trained:
        return
    if minutes is not None:
        minutes_for_strangers(settings, minutes, key="evaluation.adapted_minutes")
        folder = fitted_folder(settings, subject=subject, minutes=minutes)
        if not folder.is_dir():
            amount = f"{minutes:g} minutes" if minutes else "the anatomy"
            raise InputError(
                f"{folder}: no layer was fitted to {amount} of subject {subject}; first run "
                f"{_command(settings, subject, f'{minutes:g}')}"
            )
        validate_current(settings, folder)
        check_unchanged(folder.parent, settings.adapt)
        _validate_length(settings, folder, subject=subject, minutes=minutes)
    elif settings.aligned and settings.alignment.per_subject:
        raise InputError(
            f"subject {subject}: has no alignment layer, only {', '.join(trained)} were trained "
            f"(alignment.per_subject); fit one with {_command(settings, subject, 'N')}, then set "
            "evaluation.adapted_minutes to N"
        )


def encoder_for(settings: Config, encoder: Pretrained, *, subject: str) -> Pretrained:
    """The trained encoder with the subject's layer for all maps; the rest is shared with it, unless
    it was trained for that subject as well.

    Raises InputError as `validate_layer`.
    """
    minutes, known = settings.evaluation.adapted_minutes, settings.protocol.train_subjects
    if minutes is not None and subject not in known and settings.adapt.with_encoder:
        validate_layer(settings, subject=subject)
        folder = fitted_folder(settings, subject=subject, minutes=minutes)
        return load_encoder(folder / ENCODER, box=encoder.module.box)
    return with_layer(encoder, layer_for(settings, encoder, subject=subject))


def layer_for(settings: Config, encoder: Pretrained, *, subject: str) -> Layer:
    """The layer that a subject's maps go through; the identity's without alignment.

    A training subject's is the one that it was trained with; another's is the one fitted to
    `evaluation.adapted_minutes`, or without them the shared one. Raises InputError as
    `validate_layer`.
    """
    validate_layer(settings, subject=subject)
    module = encoder.module
    minutes, trained = settings.evaluation.adapted_minutes, settings.protocol.train_subjects
    if subject not in trained and minutes is not None:
        folder = fitted_folder(settings, subject=subject, minutes=minutes)
        return load_layer(folder, maps_shape=(module.height, module.width))
    if not settings.aligned:
        return Layer(Identity(), {})
    if module.subjects not in (0, len(trained)):
        raise InputError(
            f"{system.model_folder(settings, 'cotrain')}: has {module.subjects} alignment layers, "
            f"but protocol.train_subjects are {len(trained)}"
        )
    layers = layers_of(encoder, subjects=trained)
    return layers[SHARED] if SHARED in layers else layers[subject]


def displacements(
    settings: Config, encoder: Pretrained
) -> Float[np.ndarray, "s height width 2"] | None:
    """Of the training subjects' layers, as of `Alignment.shift`; None where one of the layers does
    not fetch its signal from one place."""
    shape = (encoder.module.height, encoder.module.width)
    layers = [layer_for(settings, encoder, subject=s) for s in settings.protocol.train_subjects]
    found = [layer.method.shift(layer.params, maps_shape=shape) for layer in layers]
    known = [one for one in found if one is not None]
    return np.stack(known) if len(known) == len(found) else None


def average_window(
    settings: Config, encoder: Pretrained, *, store: Store
) -> Float[Array, "w height width"]:
    """The training subjects' average window in the common space; every sample counts the same."""
    subjects = settings.protocol.train_subjects
    if not settings.aligned:
        return jnp.asarray(store.average(subjects=subjects))
    if not encoder.module.subjects:
        return align(encoder, store.average(subjects=subjects))
    aligned = [
        align(encoder_for(settings, encoder, subject=subject), store.average(subjects=[subject]))
        for subject in subjects
    ]
    counts = store.present("train", subjects=subjects).sum(axis=0)
    return jnp.average(jnp.stack(aligned), axis=0, weights=jnp.asarray(counts, jnp.float32))


def validate_current(settings: Config, folder: Path) -> None:
    """A fitted layer belongs to the model that stage 2 had left when it was fitted, and one of a
    subject of `protocol.test_store` to the data that it held.
    """
    about, other = read_config(folder), settings.protocol.test_store
    steps = about.get("cotrain_steps")
    if steps != settings.cotrain.steps:
        raise InputError(
            f"{folder}: was fitted when stage 2 had {steps} steps, now it has "
            f"{settings.cotrain.steps}; remove {folder.parent} to fit it anew"
        )
    if other is not None and about.get("data") != Store.open(other).attributes.identity:
        raise InputError(
            f"{folder}: was fitted to other data than are in {other}; remove {folder.parent} to "
            "fit it anew"
        )


def _validate_length(settings: Config, folder: Path, *, subject: str, minutes: float) -> None:
    """A layer may be fitted for longer later on; what is decoded with it says for how long."""
    done, steps = read_done(folder.parent), settings.adapt.steps
    if done is None or done.step != steps:
        took = "is not fitted to its end" if done is None else f"was fitted in {done.step} steps"
        raise InputError(
            f"{folder}: {took}, but adapt.steps is {steps}; remove {folder.parent} and run "
            f"{_command(settings, subject, f'{minutes:g}')} --set adapt.steps={steps}"
        )


def _command(settings: Config, subject: str, minutes: str) -> str:
    words = ("--config", settings.run_dir / "config.yaml", *elsewhere(settings))
    own = settings.adapt
    chosen = (("--method", own.method), ("--data", own.data))
    wanted = ["--subject", subject]
    wanted += [] if minutes == "0" else ["--minutes", minutes]  # of a method that needs none
    wanted += [word for option, x in chosen if x is not None for word in (option, x)]
    wanted += ["--encoder"] if own.with_encoder else []
    return f"{typed('train.adapt')} {command_line(*words, *wanted)}"


def elsewhere(settings: Config) -> list[str]:
    """Arguments for what the run's own configuration does not say: another store to decode, and
    another place for results."""
    other, subjects = settings.protocol.test_store, json.dumps(settings.protocol.test_subjects)
    sets = [] if settings.results_dir is None else [f"results_dir={settings.results_dir}"]
    if other is not None:
        sets += [
            f"protocol.test_store={other}",
            f"protocol.test_subjects={subjects}",
            "protocol.name=cross-dataset",  # the run's own may say otherwise
        ]
    return [word for one in sets for word in ("--set", one)]
