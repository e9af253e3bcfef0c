"""What the three stages share: prepared data, and a finished stage's model folder."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from glfa_jax import alignments, config, start_from, system
from glfa_jax.batch import Batch
from glfa_jax.data import pipeline
from glfa_jax.data.store import Store
from glfa_jax.errors import InputError
from glfa_jax.files import whole_folder
from glfa_jax.ops import attention
from glfa_jax.preparation import prepare
from glfa_jax.starting import typed
from glfa_jax.training import processes
from glfa_jax.training.checkpoints import latest_step, mark_done, read_done
from glfa_jax.training.loop import (
    check_unchanged,
    finished,
    keep_config,
    train,
    use_compilation_cache,
)
from glfa_jax.training.processes import is_main, say, together
from glfa_jax.training.sharding import make_mesh, process_share, to_host


def order(settings: config.Config) -> tuple[str, ...]:
    """The stages of the method; LEA's own is not trained in steps."""
    middle = "lea" if settings.method == "lea" else "contrast"
    return ("pretrain", middle, *(("cotrain",) if settings.cotrains else ()))


@contextmanager
def begun(settings: config.Config) -> Iterator[Store]:
    """Rejects what does not fit before anything is written, then gives the prepared data.

    The run folder is this command's alone while the block lasts, and attention is computed as
    `hardware.attention` says.
    """
    processes.start(settings.hardware.processes)
    use_compilation_cache()
    with processes.alone_in(settings.run_dir):
        check_unchanged(settings.run_dir, settings)
        validate_steps(settings)
        validate_earlier_stages(settings)
        alignments.configured(settings)
        system.check_foundation(settings)
        for name in needed_stages(settings):
            start_from.validate(settings, name)
        store = prepare(settings.data) if jax.process_count() == 1 else _prepared(settings)
        keep_config(settings.run_dir, settings)
        with attention.using(settings.hardware.attention):
            yield store


def _prepared(settings: config.Config) -> Store:
    """What one process prepared before: the others would only wait for it."""
    if not settings.data.store.exists():
        raise InputError(
            f"{settings.data.store}: no prepared store; with several processes, first run "
            f"{typed('glfa_jax.data.prepare')} with this configuration on one of them"
        )
    return prepare(settings.data, progress=is_main())


def validate_steps(settings: config.Config) -> None:
    """Else the run's configuration would be overwritten with one that its model is not of."""
    for name in order(settings):
        stage, folder = getattr(settings, name), settings.run_dir / name
        steps = latest_step(folder) if isinstance(stage, config.Stage) else None
        if steps is not None and steps > stage.steps and name not in settings.without:
            raise InputError(
                f"{name}.steps: {stage.steps}, but {folder} has been trained for {steps} steps "
                "already; use another run_dir or as many steps"
            )


def validate_earlier_stages(settings: config.Config) -> None:
    """A stage's length may grow only while nothing was built on it."""
    for earlier, later in pairwise(needed_stages(settings)):
        done, stage = read_done(settings.run_dir / earlier), getattr(settings, earlier)
        if done and done.step != stage.steps and (settings.run_dir / later).exists():
            raise InputError(
                f"{earlier}.steps: {stage.steps}, but {later} in {settings.run_dir} was begun from "
                f"{done.step} steps; use another run_dir"
            )


def needed_stages(settings: config.Config) -> list[str]:
    """The stages of the method in order, but for those that are left out."""
    return [
        name
        for name in order(settings)
        if name not in settings.without and not start_from.unneeded(settings, name)
    ]


def section(settings: config.Config, name: str) -> config.Stage:
    """The options of a stage; "adapt/03-4min" is one of `adapt`."""
    return getattr(settings, name.partition("/")[0])


def complete(settings: config.Config, name: str) -> bool:
    """Whether the stage is left out, or trained and its model stored; says so."""
    if name in settings.without:
        say(f"{name}: left out (without)")
        return True
    if instead := start_from.unneeded(settings, name):
        say(f"{name}: left out, nothing of it is used ({instead})")
        return True
    stored = system.model_folder(settings, name).is_dir()
    stage = section(settings, name)
    return stored and finished(name, system.stage_folder(settings, name), stage=stage)


def batches(
    settings: config.Config,
    store: Store,
    name: str,
    *,
    augment: pipeline.Augment | None,
    latents: bool,
) -> pipeline.Stream[Batch]:
    """The stage's endless stream of training batches; `latents` in place of video."""
    return pipeline.batches(
        store,
        subjects=settings.protocol.train_subjects,
        split="train",
        batch_size=getattr(settings, name).batch_size,
        seed=settings.seed,
        tokenize=system.tokenizer(settings),
        augment=augment,
        shuffle=True,
        repeat=True,
        paired_fraction=getattr(settings, name).paired_fraction,
        latents=latents,
        **share(settings),
    )


def compute_in(settings: config.Config) -> dict[str, Any]:
    """Options of modules that decide how they compute while training, not what."""
    hardware = settings.hardware
    return {"dtype": jnp.dtype(hardware.compute_dtype), "remat": hardware.remat}


def share(settings: config.Config) -> dict[str, int]:
    """Which part of every batch this process loads."""
    index, count = process_share(make_mesh(settings.hardware.mesh))
    return {"process_index": index, "process_count": count}


def run_stage(
    settings: config.Config,
    name: str,
    *,
    says: str,
    fingerprint: Mapping[str, Any] | None = None,
    **training: Any,
) -> dict:
    """Trains one stage, or goes on with it; the trained parameters, as numpy.

    fingerprint: what checkpoints must agree on besides the data.
    """
    say(f"== {name}: {says}")
    given = start_from.starts(settings, name) if name.partition("/")[0] != "adapt" else {}
    # Nothing where nothing is given, as it was before there was a choice.
    start = {"start": {option: one.sha256 for option, one in given.items()}} if given else {}

    def beginning() -> None:
        discard(system.model_folder(settings, name))  # of fewer steps
        if given:
            start_from.write(settings, name, given)

    state = train(
        name=name,
        folder=system.stage_folder(settings, name),
        stage=section(settings, name),
        seed=settings.seed,
        fingerprint={"data": training["batches"].fingerprint, **start, **(fingerprint or {})},
        hardware=settings.hardware,
        record=settings.model_dump(mode="json"),
        beginning=beginning,
        **training,
    )
    return to_host(state.params)


def take_as_given(settings: config.Config, name: str) -> None:
    """In place of `run_stage` for a stage of no steps, whose model is what it starts from."""
    say(f"== {name}: nothing is trained, the model is taken as it is given")
    if is_main():
        discard(system.model_folder(settings, name))
        start_from.write(settings, name, start_from.starts(settings, name))
        mark_done(system.stage_folder(settings, name), step=0, metrics={})
    together(f"{name} is taken as given")


def from_folder(
    settings: config.Config, name: str, option: str, *, without: str | None = None
) -> str:
    """The end of a sentence about a stage that starts from a folder; empty where it does not."""
    folder = getattr(section(settings, name), option)
    but = f" without {without}" if without else ""
    return "" if folder is None else f", from {folder}{but}"


def store_model(settings: config.Config, name: str, write: Callable[[Path], None]) -> None:
    """Lets `write` fill a folder aside, then gives it its name: half a model is never found."""
    if is_main():
        with whole_folder(system.model_folder(settings, name)) as aside:
            write(aside)
    together(f"the model of {name} is stored")


def discard(folder: Path) -> None:
    """Takes the name away first: a removal may be cut short, a rename not."""
    aside = folder.with_name("model.stale")
    shutil.rmtree(aside, ignore_errors=True)
    if folder.exists():
        folder.rename(aside)
        shutil.rmtree(aside)
