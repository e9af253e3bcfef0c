"""What the stages share of `--compile-only` and `--plan`: a step's shapes, and what it needs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh

from glfa_jax import config
from glfa_jax.batch import Batch
from glfa_jax.files import write_atomically
from glfa_jax.ops import attention
from glfa_jax.stages.running import section
from glfa_jax.training.compile_only import compile_step
from glfa_jax.training.needs import frozen_shapes, needs_of
from glfa_jax.training.optim import Group, optimizer
from glfa_jax.training.room import most_at_once, shown
from glfa_jax.training.sharding import AXES
from glfa_jax.training.step import LossFn, abstract_state


def shape(*sides: int, dtype: Any = jnp.float32) -> Any:
    """An array that is not there."""
    return jax.ShapeDtypeStruct(sides, dtype)


def batch_shapes(
    settings: config.Config, name: str, *, tokens: int, latents: tuple[int, ...] | None = None
) -> Batch:
    """A whole batch of a stage.

    tokens: of a caption. latents: the shape of one clip's encoding, in place of its video.
    """
    data, stage = settings.data, getattr(settings, name)
    subjects = len(settings.protocol.train_subjects)
    rows = stage.batch_size // subjects  # a row holds a window of every subject
    shown = 1 if stage.paired_fraction == 1 else subjects
    frames = data.frames if latents is None else 0
    return Batch(
        fmri=shape(rows, subjects, data.window, data.map_size, data.map_size),
        video=shape(rows, shown, frames, *data.resolution, 3),
        tokens=shape(rows, shown, tokens, dtype=jnp.int32),
        clip=shape(rows, shown, dtype=jnp.int32),
        paired=shape(rows, dtype=jnp.bool_),
        latents=None if latents is None else shape(rows, shown, *latents),
    )


@dataclass(frozen=True)
class Step:
    """A stage's training step without weights and data: params, frozen and batch are shapes."""

    params: dict
    frozen: Any
    batch: Any
    loss_fn: LossFn
    groups: tuple[Group, ...]


def compile_stage(
    settings: config.Config, name: str, topology: str, report: Path | None, step: Step
) -> None:
    """Compiles one step of a stage, and prints what it needs; `report`: as JSON too."""
    with attention.using(settings.hardware.attention):
        found = compile_step(
            topology, stage=section(settings, name), hardware=settings.hardware, **vars(step)
        )
    print(found, flush=True)
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(report, json.dumps(found.as_json(), indent=2) + "\n")


def say_plan(settings: config.Config, steps: Mapping[str, Step]) -> None:
    """Prints what each stage holds on a device and on the disk; nothing is read or compiled.

    The mesh may be of devices that are not here; `data`, left out, is taken for one.
    """
    size, hardware = settings.hardware.mesh, settings.hardware
    sides = (size.data or 1, size.fsdp, size.frame)
    mesh = AbstractMesh(sides, AXES)
    print(f"{settings.name}, on each device of a mesh {dict(zip(AXES, sides, strict=True))}:")
    head = ("trained", "moments", "gradients", "frozen", "on device", "checkpoint", "on disk")
    print(f"{'':10}" + "".join(f"{word:>12}" for word in head))
    for name, step in steps.items():
        stage = section(settings, name)
        optim = optimizer(
            stage, trainable=step.params, groups=step.groups, moment_dtype=hardware.moment_dtype
        )
        state = abstract_state(step.params, optim, mesh, hardware)
        found = needs_of(state, frozen_shapes(step.frozen, mesh, hardware))
        kept = found.checkpoint * most_at_once(stage)
        sizes = (found.trained, found.moments, found.gradients, found.frozen, found.on_device)
        cells = "".join(f"{shown(x):>12}" for x in (*sizes, found.checkpoint, kept))
        print(f"{name:10}{cells}")
    print(
        "Activations come on top: --compile-only TOPOLOGY says how much. On disk: the checkpoints "
        "that exist at once."
    )
