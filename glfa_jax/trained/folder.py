"""A trained decoder as one folder that travels alone.

    README.md        the model card: use, training, results, licence
    config.yaml      the configuration that it was trained with
    decoder.json     what the folder holds, of which versions, and the run's metrics
    encoder/         fMRI encoder and alignment
    text-to-video/   the generator, in the layout that its pretrained folder has
    trained_on/      the average training map, the cortex mask, the timing; in drawing/ how scans
                     become such maps, and in connectivity/ what those of somebody new are aligned
                     to, where surfaces and store were there
    fitted/04/       the alignment layer of subject 04, to whom the decoder was adapted; or in
                     encoder/ a whole encoder, where it was trained for that subject as well

Weights are safetensors with checksums. Neither foundation models nor prepared data are needed.
"""

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from glfa_jax import __version__, config, system
from glfa_jax.alignments import (
    SHARED,
    layers_of,
    load_encoder,
    load_layer,
    save_encoder,
    shares_all_but_layer,
    with_layer,
)
from glfa_jax.convert import pretrained
from glfa_jax.convert.directory import new_folder, seal
from glfa_jax.convert.pretrained import Pretrained
from glfa_jax.data import DataError
from glfa_jax.errors import InputError
from glfa_jax.files import read_object, verify_checksums
from glfa_jax.trained import Trained
from glfa_jax.trained.card import model_card
from glfa_jax.trained.data import FOLDER, TrainedOn
from glfa_jax.trained.group import its_store, mean_connectivity
from glfa_jax.trained.model import Model
from glfa_jax.trained.run import on_this_machine
from glfa_jax.training.contents import versions

FILE, FORMAT = "decoder.json", 1
_ENCODER, _GENERATOR, _FITTED = "encoder", "text-to-video", "fitted"


def is_one(folder: Path) -> bool:
    return (folder / FILE).is_file()


def write(trained: Trained, target: Path, *, licence: str | None = None) -> Path:
    """Writes the folder whole or not at all; returns it. Raises InputError for one in use."""
    settings, model = trained.settings, trained.model
    module, params = model.encoder.module, model.encoder.variables["params"]
    about = {
        "format": FORMAT,
        "method": settings.method,
        "versions": {"glfa_jax": __version__, **versions()},
        "fitted": sorted(trained.fitted),
        "metrics": list(trained.metrics),
    }
    card = model_card(target.resolve().name, trained, licence=licence)
    kept = _whole(trained)
    with new_folder(target) as folder:
        (folder / "config.yaml").write_text(config.dump(settings), encoding="utf-8")
        (folder / FILE).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        seal(folder)  # not the card, which people edit
        (folder / "README.md").write_text(card, encoding="utf-8")
        if settings.method == "lea":
            own = pretrained.own_config(module)
            pretrained.save("lea", folder / _ENCODER, params, config=own)
        else:
            save_encoder(folder / _ENCODER, module, params)
        model.generator.export(model.denoiser, model.codec, folder / _GENERATOR)
        kept.save(folder / FOLDER)
        for subject, own in trained.fitted.items():
            _write_fitted(folder / _FITTED / subject, own, whole=model.encoder)
    return target


def _whole(trained: Trained) -> TrainedOn:
    """All that decoding scans needs, as far as surfaces and store are here."""
    settings, kept = trained.settings, trained.trained_on
    with suppress(DataError):
        kept = kept.with_drawing(settings.data)
    if kept.connectivity is None and settings.method != "lea":
        with suppress(InputError):  # no store, another, or one without the training subjects
            store = its_store(settings, identity=kept.timing.identity)
            found = mean_connectivity(settings, trained.model.encoder, store=store)
            kept = replace(kept, connectivity=found)
    return kept


def _write_fitted(place: Path, own: Pretrained, *, whole: Pretrained) -> None:
    """A subject's encoder; of one that differs from the decoder's in the layer, that alone."""
    module = own.module
    if shares_all_but_layer(own, whole):
        layer = layers_of(own)[SHARED]
        layer.method.save(place, layer.params, maps_shape=(module.height, module.width))
    else:
        save_encoder(place / _ENCODER, module, own.variables["params"])


def _read_fitted(place: Path, *, whole: Pretrained) -> Pretrained:
    if (place / _ENCODER).is_dir():
        return load_encoder(place / _ENCODER)
    shape = (whole.module.height, whole.module.width)
    return with_layer(whole, load_layer(place, maps_shape=shape))


def read(folder: Path) -> Trained:
    """Reads what `write` wrote. Raises InputError naming what is missing or damaged."""
    verify_checksums(folder)
    about = read_object(folder / FILE)
    if about.get("format") != FORMAT:
        raise InputError(
            f"{folder / FILE}: has format {about.get('format')}, this version reads {FORMAT}"
        )
    settings = on_this_machine(config.load(folder / "config.yaml"))
    if settings.method == "lea":
        encoder = pretrained.load("lea", folder / _ENCODER)
    else:
        encoder = load_encoder(folder / _ENCODER)
    generator = system.generator(settings, folder=folder / _GENERATOR)
    fitted = {
        str(subject): _read_fitted(folder / _FITTED / str(subject), whole=encoder)
        for subject in about.get("fitted", ())
    }
    return Trained(
        settings,
        Model(encoder, generator, generator.load(), generator.load_codec()),
        TrainedOn.load(folder / FOLDER),
        fitted,
        tuple(about.get("metrics", ())),
    )
