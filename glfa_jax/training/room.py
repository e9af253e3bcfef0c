"""Whether the disk can hold a stage's checkpoints: asked before the first step, not at step 500."""

import shutil
from pathlib import Path
from typing import Any

import jax

from glfa_jax import config
from glfa_jax.errors import TrainingError
from glfa_jax.training.processes import anywhere, say
from glfa_jax.training.state import TrainState


def validate(folder: Path, state: TrainState, *, most: int) -> None:
    """Says how large a checkpoint is; raises TrainingError where not all fit, in every process.

    folder: of the checkpoints; those that are there already need no more room. state: arrays or
    shapes. most: how many checkpoints exist at once, the one that is being written among them.
    """
    there = sum(path.name.isdigit() for path in folder.iterdir())
    size = size_of(state)
    wanted, free = size * max(most - there, 0), shutil.disk_usage(folder).free
    say(f"{folder}: a checkpoint takes {shown(size)}, at most {most} are there at once")
    if anywhere(wanted > free):
        raise TrainingError(
            f"{folder}: {most} checkpoints of {shown(size)} need {shown(wanted)} more, the disk "
            f"has {shown(free)} free; make room, or keep fewer (keep, keep_best)"
        )


def most_at_once(stage: config.Stage) -> int:
    """Checkpoints: those that are kept, and the one that is being written."""
    return stage.keep + stage.keep_best + 1


def size_of(state: TrainState) -> int:
    """Bytes of a checkpoint; state: arrays or shapes."""
    kept: Any = jax.tree.leaves((state.params, state.opt_state))
    return sum(x.size * x.dtype.itemsize for x in kept)


def shown(size: float) -> str:
    """Bytes, as people read them."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
