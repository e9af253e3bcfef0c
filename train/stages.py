"""What the three stages share: prepared data, and a finished stage's model folder."""

import shutil
from collections.abc import Callable
from typing import Any

from glfa_jax import config, system
from glfa_jax.data.prepare import prepare
from glfa_jax.data.store import Store
from glfa_jax.training.loop import (
    check_unchanged,
    finished,
    refuse_if_changed,
    train,
    use_compilation_cache,
)


def begin(settings: config.Config) -> Store:
    """Refuses what does not fit before anything is written, then gives the prepared data."""
    use_compilation_cache()
    check_unchanged(settings.run_dir, settings)
    system.check_foundation(settings)
    refuse_if_changed(settings.run_dir, settings)
    return prepare(settings.data)


def complete(settings: config.Config, name: str) -> bool:
    """Whether the stage is trained and its model stored; says so."""
    stage = getattr(settings, name)
    folder = settings.run_dir / name
    return system.model_folder(settings, name).is_dir() and finished(name, folder, stage=stage)


def run_stage(settings: config.Config, name: str, *, says: str, **training: Any) -> dict:
    """Trains one stage, or goes on with it; the trained parameters."""
    print(f"== {name}: {says}", flush=True)
    state = train(
        name=name,
        folder=settings.run_dir / name,
        stage=getattr(settings, name),
        seed=settings.seed,
        fingerprint={"data": training["batches"].fingerprint},
        **training,
    )
    return state.params


def store_model(settings: config.Config, name: str, write: Callable) -> None:
    """Lets `write` fill a folder aside, then gives it its name: half a model is never found."""
    folder = system.model_folder(settings, name)
    aside = folder.with_name("model.partial")
    shutil.rmtree(aside, ignore_errors=True)
    write(aside)
    if folder.exists():  # of fewer steps
        shutil.rmtree(folder)
    aside.rename(folder)
