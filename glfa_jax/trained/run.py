"""A finished run's decoder, from the run's folder."""

from contextlib import suppress

import numpy as np

from glfa_jax import config, system
from glfa_jax.convert.pretrained import Pretrained
from glfa_jax.data import DataError
from glfa_jax.data.store import Store
from glfa_jax.errors import InputError
from glfa_jax.files import read_json
from glfa_jax.subject_alignment import average_window, encoder_for, fitted_folder
from glfa_jax.trained import Trained, drawn
from glfa_jax.trained.data import FOLDER, TrainedOn
from glfa_jax.trained.model import Model, last_stage, load_model, validate_finished


def of_run(settings: config.Config, *, adapted_minutes: float | None = None) -> Trained:
    """Raises InputError for a run that is not finished, as the commands do, and where a layer was
    not fitted to so many minutes of any subject."""
    validate_finished(settings)
    model = load_model(settings)
    fitted = {} if adapted_minutes is None else _fitted(settings, model, minutes=adapted_minutes)
    return Trained(
        on_this_machine(settings), model, trained_on(settings, model), fitted, _metrics(settings)
    )


def on_this_machine(settings: config.Config) -> config.Config:
    """On one device, whatever mesh it was trained on; numbers are computed as they were."""
    own = settings.hardware
    hardware = config.Hardware(
        compute_dtype=own.compute_dtype, matmul_precision=own.matmul_precision
    )
    return settings.model_copy(update={"hardware": hardware})


def trained_on(settings: config.Config, model: Model) -> TrainedOn:
    """What was kept beside the model; of a run from before that, made of its prepared store."""
    folder = system.model_folder(settings, last_stage(settings)) / FOLDER
    if folder.is_dir():
        return TrainedOn.load(folder)
    return kept_of(settings, model.encoder, store=Store.open(settings.data.store))


def kept_of(settings: config.Config, encoder: Pretrained, *, store: Store) -> TrainedOn:
    """What a decoder keeps of the store that it was trained on."""
    average = average_window(settings, encoder, store=store)
    drawing = None
    with suppress(DataError):  # a store may lie where its surfaces are not
        drawing = drawn.of_store(settings.data, store)
    return TrainedOn.of(store, average=np.asarray(average), drawing=drawing)


def _fitted(settings: config.Config, model: Model, *, minutes: float) -> dict[str, Pretrained]:
    own = settings.evaluation.model_copy(update={"adapted_minutes": minutes})
    adapted = settings.model_copy(update={"evaluation": own})
    trained = settings.protocol.train_subjects
    there = [
        subject
        for subject in dict.fromkeys((*settings.protocol.test_subjects, *settings.data.subjects))
        if subject not in trained
        and fitted_folder(settings, subject=subject, minutes=minutes).is_dir()
    ]
    if not there:
        raise InputError(
            f"{settings.run_dir}: no alignment was fitted to {minutes:g} minutes of anybody "
            f"(adapt/SUBJECT-{system.fit_name(settings, minutes)})"
        )
    return {subject: encoder_for(adapted, model.encoder, subject=subject) for subject in there}


def _metrics(settings: config.Config) -> tuple[dict, ...]:
    path = system.results_folder(settings) / "metrics.json"
    return tuple(read_json(path)) if path.is_file() else ()
