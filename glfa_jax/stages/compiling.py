"""What the stages share of `--compile-only`: a step's shapes, compiled, and the report of it."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from glfa_jax import config
from glfa_jax.batch import Batch
from glfa_jax.files import write_atomically
from glfa_jax.ops import attention
from glfa_jax.stages.running import section
from glfa_jax.training.compile_only import compile_step


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


def compile_stage(
    settings: config.Config, name: str, topology: str, report: Path | None, **step: Any
) -> None:
    """Compiles one step of a stage, and prints what it needs; `report`: as JSON too.

    step: params, frozen, batch, loss_fn and groups, as `compile_step` takes them.
    """
    with attention.using(settings.hardware.attention):
        found = compile_step(
            topology, stage=section(settings, name), hardware=settings.hardware, **step
        )
    print(found, flush=True)
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(report, json.dumps(found.as_json(), indent=2) + "\n")
