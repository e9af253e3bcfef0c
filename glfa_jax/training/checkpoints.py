"""Checkpoints of a run: written in the background, whole under a kill at any moment, checked.

A checkpoint holds three items: `params` (the trainable parameters), `opt_state` and `about`, a JSON
file with the state of the data iterator, metrics, fingerprint, configuration, library versions and,
for every array, its shape, type and checksum. Restoring compares them, because the storage layer by
itself hands back missing arrays as shapes and casts types without a word.
"""

import hashlib
import json
import logging
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import unflatten_dict
from orbax.checkpoint.checkpoint_managers import preservation_policy

from glfa_jax.errors import InputError, TrainingError
from glfa_jax.files import is_full, read_object, write_atomically
from glfa_jax.training.contents import (
    checksums,
    described,
    differences,
    named,
    short,
    validate_names,
    versions,
    warn,
    warn_of_versions,
)
from glfa_jax.training.processes import anywhere, is_main, together
from glfa_jax.training.state import TrainState

_SECTIONS = ("metrics", "fingerprint", "versions", "arrays", "checksums")  # of `about`

T = TypeVar("T")

# What fails is told here, in a sentence; orbax prints a traceback of each of its threads as well,
# and where a write has failed, its event loops complain while they are deleted.
for name in ("absl", "asyncio"):
    logging.getLogger(name).setLevel(logging.CRITICAL)


def _unless_of_a_closed_loop(told: Callable[[Any], object], about: Any) -> None:
    if str(about.exc_value) != "Event loop is closed":
        told(about)


sys.unraisablehook = partial(_unless_of_a_closed_loop, sys.unraisablehook)


class Restored(NamedTuple):
    state: TrainState
    data_state: Any
    metrics: dict[str, float]


class Done(NamedTuple):
    """A finished stage."""

    step: int
    metrics: dict[str, float]


class _Broken(Exception):
    """A checkpoint cannot be read, or reads back as something other than was written."""


class Checkpoints:
    """The checkpoints of one run, in `folder/checkpoints`.

    keep, keep_best: how many of the latest, and of those of lowest loss, to keep.
    fingerprint: JSON values that must not change between saving and restoring.
    record: JSON to keep with every checkpoint.

    Several processes call everything alike; one of them tidies up.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int,
        keep_best: int = 0,
        fingerprint: Mapping[str, Any],
        record: Any = None,
    ):
        self._folder = folder.resolve() / "checkpoints"
        self._fingerprint = json.loads(json.dumps(fingerprint))
        self._record = record
        best = preservation_policy.BestN(
            get_metric_fn=lambda metrics: metrics["loss"], reverse=True, n=keep_best
        )
        self._by_metric = keep_best > 0
        policies = [preservation_policy.LatestN(keep), *([best] if self._by_metric else [])]
        self._options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.AnyPreservationPolicy(policies),
            # Deleting a folder can be cut short by a kill, renaming it cannot.
            todelete_subdir="trash",
        )
        self._manager = self._open()
        self._unwritten: str | None = None  # why the last checkpoint could not be written

    def _open(self) -> ocp.CheckpointManager:
        self._empty_trash()
        for part in self._folder.glob("*.orbax-checkpoint-tmp*") if is_main() else ():
            step = part.name.partition(".")[0]
            warn(f"{self._folder}: checkpoint {step} was not finished, removing it")
            shutil.rmtree(part, ignore_errors=True)
        names = ("params", "opt_state", "about")
        return ocp.CheckpointManager(self._folder, item_names=names, options=self._options)

    def save(
        self, step: int, *, state: TrainState, data_state: Any, metrics: Mapping[str, float]
    ) -> None:
        """Starts writing; returns once the arrays are copied, so they may be donated.

        Where the one before could not be written, says so: training goes on, for the state is not
        lost as long as it runs.
        """
        self._settle()
        self._unwritten = None
        items = {"params": state.params, "opt_state": state.opt_state}
        about = {
            "step": step,
            "metrics": dict(metrics),
            "data": data_state,
            "fingerprint": self._fingerprint,
            "record": self._record,
            "versions": versions(),
            "arrays": described(items),
            "checksums": checksums(items),
        }
        try:
            about["digest"] = _digest(about)
        except TypeError as error:
            raise TrainingError(f"the state of the data iterator must be JSON: {error}") from None
        validate_names(items)
        self._empty_trash()
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.StandardSave(state.params),
                    opt_state=ocp.args.StandardSave(state.opt_state),
                    about=ocp.args.JsonSave(about),
                ),
                metrics=dict(metrics) if self._by_metric else None,
            )
        except Exception as error:  # storage raises errors of its own kinds
            self._give_up(error)

    def finish(self) -> None:
        """Waits for a write under way; raises TrainingError when the last could not be written."""
        self._settle()
        if self._unwritten:
            raise TrainingError(
                f"{self._folder}: the last checkpoint could not be written ({self._unwritten}); "
                f"the last good one is {self._manager.latest_step()}; make room and run the same "
                "command again"
            )

    def _settle(self) -> None:
        """Waits for a write under way, and notes where it failed."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # likewise
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        why = "the disk is full" if is_full(error) else short(error)
        if jax.process_count() > 1:  # the others may have written their parts: nobody can go on
            raise TrainingError(
                f"{self._folder}: a checkpoint could not be written ({why})"
            ) from None
        self._unwritten = why
        warn(
            f"{self._folder}: a checkpoint could not be written ({self._unwritten}); going on, the "
            "next will be tried"
        )
        with suppress(Exception):
            self._manager.close()
        self._manager = self._open()

    def restore_latest(self, abstract: TrainState) -> Restored | None:
        """The latest checkpoint that reads back whole; None when there is none at all.

        `abstract` holds ShapeDtypeStructs with shardings. A broken checkpoint is moved to
        `checkpoints/broken` and the one before it taken, with a word on standard error. Raises
        TrainingError when all are broken, or when one was written by a run with other parameters or
        another fingerprint.
        """
        broken: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                found = self._restore(step, abstract)
            except _Broken as error:
                broken[step] = str(error)
                continue
            for bad in broken:
                self._set_aside(bad)
            for bad, reason in broken.items():
                warn(f"{self._folder}: checkpoint {bad} is broken ({reason}); going back to {step}")
            return found
        if broken:
            reasons = "; ".join(f"{step}: {reason}" for step, reason in broken.items())
            raise TrainingError(
                f"{self._folder}: no checkpoint can be read ({reasons}); "
                "delete the folder to start again"
            )
        return None

    def latest(self) -> int | None:
        """Step of the last complete checkpoint, after waiting for a write under way."""
        self._settle()
        return self._manager.latest_step()

    def close(self) -> None:
        """Waits for a write under way."""
        self._settle()
        self._manager.close()
        self._empty_trash()

    def _restore(self, step: int, abstract: TrainState) -> Restored:
        folder = self._folder / str(step)
        wanted = {"params": abstract.params, "opt_state": abstract.opt_state}
        about = _by_all(lambda: _about(folder))
        self._compare(step, about, wanted)
        items = _by_all(
            lambda: {name: _read(folder / name, target) for name, target in wanted.items()}
        )
        _verify(items, about)
        warn_of_versions(folder, about["versions"])
        number = jax.device_put(np.int32(step), abstract.step.sharding)
        return Restored(TrainState(step=number, **items), about["data"], about["metrics"])

    def _compare(self, step: int, about: dict, wanted: dict) -> None:
        changed = differences(self._fingerprint, about["fingerprint"])
        changed += differences(described(wanted), about["arrays"], absent="absent")
        if changed:
            raise TrainingError(
                f"{self._folder}: checkpoint {step} belongs to another run "
                f"(this run | checkpoint): {'; '.join(changed)}"
            )

    def _set_aside(self, step: int) -> None:
        if is_main():
            target = self._folder.parent / "broken" / str(step)
            target.parent.mkdir(exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)
            (self._folder / str(step)).rename(target)
        together(f"checkpoint {step} is set aside")
        self._manager.reload()

    def _empty_trash(self) -> None:
        if is_main():
            shutil.rmtree(self._folder / "trash", ignore_errors=True)


def latest_step(folder: Path) -> int | None:
    """Step of the last checkpoint of a run; None where it has none."""
    steps = kept_steps(folder)
    return steps[-1] if steps else None


def kept_steps(folder: Path) -> list[int]:
    """Steps of all checkpoints of a run, the first first."""
    root = folder.resolve() / "checkpoints"
    return sorted(int(x.name) for x in root.glob("*") if x.name.isdigit())


def restore_params(folder: Path, *, step: int | None = None) -> dict[str, Any]:
    """Trainable parameters of a run as numpy arrays in nested dicts; the last step unless given.

    Raises TrainingError when the checkpoint is missing or broken.
    """
    root = folder.resolve() / "checkpoints"
    steps = kept_steps(folder)
    if step is None and steps:
        step = steps[-1]
    if step not in steps:
        raise TrainingError(f"{root}: holds no checkpoint{'' if step is None else f' {step}'}")
    try:
        about = _about(root / str(step))
        flat = {
            tuple(key.split("/")[1:]): jax.ShapeDtypeStruct(x["shape"], jnp.dtype(x["dtype"]))
            for key, x in about["arrays"].items()
            if key.startswith("params/")
        }
        params = _read(root / str(step) / "params", unflatten_dict(flat), numpy=True)
        _verify({"params": params}, about)
    except _Broken as error:
        raise TrainingError(f"{root}: checkpoint {step} is broken ({error})") from None
    return params


def mark_done(folder: Path, *, step: int, metrics: Mapping[str, float]) -> None:
    """Writes `done.json`, the sign that a stage is finished."""
    text = json.dumps({"step": step, "metrics": dict(metrics)}, indent=2)
    write_atomically(folder / "done.json", text + "\n")


def read_done(folder: Path) -> Done | None:
    """What `mark_done` wrote; None for a stage not finished. Raises InputError where damaged."""
    path = folder / "done.json"
    if not path.exists():
        return None
    try:
        match read_object(path):
            case {"step": int(step), "metrics": dict(metrics)} if all(
                isinstance(value, int | float) for value in metrics.values()
            ):
                return Done(step, metrics)
        raise InputError(f"{path}: must hold step and metrics")
    except InputError as error:
        raise InputError(
            f"{error}; remove it, and the training goes on from its last checkpoint"
        ) from None


def unmark_done(folder: Path) -> None:
    (folder / "done.json").unlink(missing_ok=True)


def load_trained(folder: Path) -> dict[str, Any]:
    """Trainable parameters of a finished stage, as numpy arrays; raises TrainingError before."""
    done = read_done(folder)
    if done is None:
        raise TrainingError(f"{folder}: this stage is not finished (no done.json); run it first")
    return restore_params(folder, step=done.step)


def _verify(items: dict, about: dict) -> None:
    wrong = [name for name, value in checksums(items).items() if about["checksums"][name] != value]
    if wrong:
        raise _Broken(f"{len(wrong)} arrays differ from what was written, {wrong[0]} first")


def _by_all(read: Callable[[], T]) -> T:
    """Reads in every process, or is broken in every process: damage may be where only one reads."""
    try:
        found, problem = read(), None
    except _Broken as error:
        found, problem = None, error
    if not anywhere(problem is not None):
        return cast(T, found)
    raise problem or _Broken("another process cannot read it")


# The handlers below are called by themselves: around them, `Checkpointer` makes all processes wait
# for one that has failed.


def _about(folder: Path) -> dict:
    handler: Any = ocp.JsonCheckpointHandler()
    try:
        about = handler.restore(folder / "about", ocp.args.JsonRestore())
        sections = {name: about[name].keys() for name in _SECTIONS}
    except Exception as error:  # what storage raises on damage is not documented
        raise _Broken(short(error)) from None
    given = about.pop("digest", None)  # earlier versions wrote none
    if sections["arrays"] != sections["checksums"] or given not in (None, _digest(about)):
        raise _Broken("its metadata differ from what was written")
    return about


def _digest(about: dict) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _read(folder: Path, target: Any, *, numpy: bool = False) -> Any:
    kind = np.ndarray if numpy else jax.Array

    def how(x: jax.ShapeDtypeStruct) -> ocp.RestoreArgs:
        if numpy:
            return ocp.RestoreArgs(restore_type=np.ndarray, dtype=x.dtype)
        return ocp.ArrayRestoreArgs(sharding=x.sharding, global_shape=x.shape, dtype=x.dtype)

    handler: Any = ocp.PyTreeCheckpointHandler()
    try:
        tree = handler.restore(
            folder,
            args=ocp.args.PyTreeRestore(item=target, restore_args=jax.tree.map(how, target)),
        )
    except Exception as error:  # likewise
        raise _Broken(short(error)) from None
    for (name, x), wanted in zip(named(tree).items(), jax.tree.leaves(target), strict=True):
        if not isinstance(x, kind) or x.shape != wanted.shape or x.dtype != wanted.dtype:
            raise _Broken(f"{name} is missing")
    return tree
