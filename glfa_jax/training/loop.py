"""The one training loop of all stages."""

import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax

from glfa_jax import config
from glfa_jax.errors import Stopped, TrainingError
from glfa_jax.files import write_atomically
from glfa_jax.training import needs, room, speed
from glfa_jax.training.checkpoints import Checkpoints, mark_done, read_done, unmark_done
from glfa_jax.training.host_memory import give_back_freed
from glfa_jax.training.logs import Log, Progress
from glfa_jax.training.optim import Group, optimizer
from glfa_jax.training.processes import StopRequest, is_main, say, together
from glfa_jax.training.profile import Profile
from glfa_jax.training.sharding import (
    describe,
    make_mesh,
    place_batch,
    place_params,
    replicated,
)
from glfa_jax.training.state import TrainState
from glfa_jax.training.step import (
    LossFn,
    Metrics,
    abstract_state,
    compiler_options,
    initial_state,
    jitted_step,
    matmul_precision,
)

EvalHook = Callable[[int, TrainState], Mapping[str, float]]
CHANGES_NO_NUMBER = frozenset({"log_every", "save_every", "keep", "keep_best"})  # of a stage


class Batches(Protocol):
    """An endless iterator over this process's share; its position is a JSON value."""

    def __next__(self) -> Any: ...
    def get_state(self) -> Any: ...
    def set_state(self, state: Any) -> None: ...


def train(
    *,
    name: str,
    folder: Path,
    stage: config.Stage,
    seed: int,
    init: Callable[[jax.Array], dict] | dict,
    frozen: Any,
    loss_fn: LossFn,
    groups: tuple[Group, ...],
    batches: Batches,
    fingerprint: Mapping[str, Any],
    hardware: config.Hardware,
    record: Any = None,
    eval_hook: EvalHook | None = None,
    beginning: Callable[[], None] = lambda: None,
) -> TrainState:
    """Trains to `stage.steps`, going on from the last checkpoint in `folder` if there is one.

    Going on gives bit for bit what never having stopped gives, on the same mesh. A stage that is
    finished is not run again. Several processes call this alike, each with its share of the data.

    init: makes the trainable parameters from a key, or is them.
    frozen: arrays that the loss needs besides, kept in `hardware.frozen_dtype`.
    loss_fn: (trainable, frozen, batch, key) to the loss and a dict of scalars to log.
    fingerprint: JSON values on which a checkpoint must agree, such as the identity of the data.
    record: JSON to keep with every checkpoint, such as the whole configuration.
    eval_hook: (step, state) to more scalars to log, called at each save; may not keep the state.
    beginning: called by the main process when nothing is rejected any more and steps will be made.

    Raises TrainingError when a metric is not finite, the data end, a checkpoint cannot be written
    or the folder is another run's; Stopped, after saving, when a scheduler asks for the machine.
    """
    mesh = make_mesh(hardware.mesh)
    folder.mkdir(parents=True, exist_ok=True)
    # Made in place: keys cannot be sent to devices of other processes.
    root = jax.jit(lambda: jax.random.key(seed), out_shardings=replicated(mesh))()
    # Steps use fold_in(root, step): no run is long enough to meet this number.
    init_key = jax.random.fold_in(root, 2**32 - 1)
    shapes = jax.eval_shape(init, init_key) if callable(init) else jax.eval_shape(lambda x: x, init)
    optim = optimizer(stage, trainable=shapes, groups=groups, moment_dtype=hardware.moment_dtype)
    abstract = abstract_state(shapes, optim, mesh, hardware)
    checkpoints = Checkpoints(
        folder,
        keep=stage.keep,
        keep_best=stage.keep_best,
        record=record,
        fingerprint={
            "name": name,
            "seed": seed,
            "stage": stage.comparable(but=_harmless_in(stage)),
            **fingerprint,
        },
    )
    try:
        start = checkpoints.restore_latest(abstract)
        first = int(start.state.step) if start else 0
        if first > stage.steps:
            raise TrainingError(
                f"{name}: {folder} has been trained for {first} steps already, more than the "
                f"{stage.steps} asked for"
            )
        if start and first == stage.steps and finished(name, folder, stage=stage):
            return start.state
        kept = needs.frozen_shapes(frozen, mesh, hardware)
        needs.validate(name, needs.needs_of(abstract, kept), mesh)
        room.validate(folder / "checkpoints", abstract, most=room.most_at_once(stage))
        if is_main():
            unmark_done(folder)
            beginning()
            text = describe(jax.tree.map(lambda x: x.sharding, abstract.params), abstract.params)
            write_atomically(folder / "sharding.txt", f"{dict(mesh.shape)}\n{text}\n")
            say(f"{name}: mesh {dict(mesh.shape)}, {text.splitlines()[0]}")
        if start:
            say(f"{name}: going on from step {first}")
            batches.set_state(start.data_state)
            state, metrics = start.state, start.metrics
        watch = _Watch(name, folder, stage, first, checkpoints)
        profile = Profile(folder / "profile", hardware.profile if is_main() else None)
        running = None
        try:
            with StopRequest() as stop:
                if first < stage.steps:
                    # Before anything is placed: compilers need memory of their own.
                    batch = place_batch(
                        watch.next(batches, first + 1), mesh, parts=stage.accumulate
                    )
                    say(f"{name}: compiling a step")
                    step_fn: Any = jitted_step(
                        loss_fn, optim, abstract, mesh, accumulate=stage.accumulate
                    )
                    with matmul_precision(hardware):
                        traced = step_fn.trace(abstract, kept, batch, root)
                    options = compiler_options(mesh, hardware, traced.jaxpr)
                    step_fn = traced.lower().compile(compiler_options=options)
                    del traced
                    give_back_freed()
                    watch.compiled(step_fn)
                say(f"{name}: placing parameters on the devices")
                if not start:
                    state, metrics = initial_state(init, init_key, optim, abstract, mesh), {}
                frozen = place_params(
                    frozen,
                    mesh,
                    copy=False,
                    from_bytes=hardware.shard_from_bytes,
                    dtype=hardware.frozen_dtype if hardware.frozen_dtype != "float32" else None,
                )
                for step in range(first + 1, stage.steps + 1):
                    if step > first + 1:
                        batch = place_batch(watch.next(batches, step), mesh, parts=stage.accumulate)
                    profile.before(step)
                    state, started = step_fn(state, frozen, batch, root)
                    profile.after(step, started)
                    # The device works on this step while the host looks at the one before.
                    if running is not None:
                        watch.settle(step - 1, running)
                    running: Metrics | None = started
                    stopping = stop.after(step)
                    if stopping or step == stage.steps or step % stage.save_every == 0:
                        watch.settle(step, started, flush=False)
                        running = None
                        more = eval_hook(step, state) if eval_hook else {}
                        metrics = watch.flush(step, more=more)
                        checkpoints.save(
                            step, state=state, data_state=batches.get_state(), metrics=metrics
                        )
                    if stopping and step < stage.steps:
                        checkpoints.finish()
                        raise Stopped(f"{name}: asked to stop, saved at step {step}")
        finally:
            watch.close()
            profile.close()
        checkpoints.finish()
        if is_main():
            mark_done(folder, step=stage.steps, metrics=metrics)
        together(f"{name} is done")
        say(f"{name}: finished, step {stage.steps}")
        return state
    finally:
        checkpoints.close()


def finished(name: str, folder: Path, *, stage: config.Stage) -> bool:
    """Whether the stage has run to its last step; says so. Skips it before anything is loaded."""
    done = read_done(folder)
    if done is None or done.step != stage.steps:
        return False
    say(f"{name}: finished already, step {done.step}")
    return True


def validate_unchanged(folder: Path, ours: config.Section, *, ignore: tuple[str, ...] = ()) -> None:
    """Writes `folder/config.yaml`, after `check_unchanged`."""
    check_unchanged(folder, ours, ignore=ignore)
    keep_config(folder, ours)


def keep_config(folder: Path, ours: config.Section) -> None:
    """Writes `folder/config.yaml` over what `check_unchanged` has let pass.

    A finished run may be read-only, and what differs then changes no number of it.
    """
    if is_main() and (not folder.is_dir() or os.access(folder, os.W_OK)):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "config.yaml", config.dump(ours))
    together("the configuration is written")


def check_unchanged(folder: Path, ours: config.Section, *, ignore: tuple[str, ...] = ()) -> None:
    """Compares with `folder/config.yaml` where there is one; writes nothing.

    Options that change no number are ignored, and keys starting with one of `ignore`, such as
    "cotrain." for a stage before it. Raises TrainingError with every other difference.
    """
    path = folder / "config.yaml"
    if path.exists():
        try:
            theirs = config.load(path, schema=type(ours))
        except config.ConfigError as error:
            raise TrainingError(
                f"{folder}: is damaged, or of another version of the program ({error}); "
                "use another folder"
            ) from None
        changed = [
            line
            for line in config.differences(ours, theirs)
            if not line.startswith(ignore) and not _harmless(line.partition(":")[0], ours)
        ]
        if changed:
            raise TrainingError(
                f"{folder}: was made with another configuration (now | then): "
                f"{'; '.join(changed)}; use another folder or the old values"
            )


def _harmless_in(stage: config.Stage) -> set[str]:
    """Options that change no number of the steps made so far."""
    steps = {"steps"} if stage.decay == "constant" else set()
    return {*CHANGES_NO_NUMBER, *config.STARTS, *steps}  # of what it starts from, see `start_from`


def _harmless(key: str, ours: config.Section) -> bool:
    section, _, option = key.rpartition(".")
    stage = getattr(ours, section, None) if section else ours
    return (
        key in ("name", "run_dir", "results_dir", "lea.batch_size")
        # who is decoded: even `published` pretraining goes by data.subjects
        or key in ("protocol.name", "protocol.test_subjects", "protocol.test_store")
        # each keeps its own settings in its own folders
        or section.partition(".")[0] in ("evaluation", "sweep", "explain", "adapt")
        or key.startswith("hardware.")
        or (isinstance(stage, config.Stage) and option in _harmless_in(stage))
    )


def use_compilation_cache(folder: Path = Path(".cache/jax")) -> None:
    """Keeps compiled programs between runs, those that took half a second to compile.

    JAX's environment variables, such as JAX_COMPILATION_CACHE_DIR, override both.
    """
    jax.config.update(
        "jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(folder)
    )
    if not os.environ.get("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


class _Watch:
    """The host's view of a run: waits for data, looks at metrics, logs their means."""

    def __init__(
        self, name: str, folder: Path, stage: config.Stage, first: int, checkpoints: Checkpoints
    ):
        self._name, self._stage, self._checkpoints = name, stage, checkpoints
        self._log = Log(folder, step=first) if is_main() else None
        self._progress = Progress(name, step=first, steps=stage.steps) if is_main() else None
        self._folder = folder
        self._operations = 0.0  # of a step, on one device
        self._begin()

    def _begin(self) -> None:
        self._sums: dict[str, list[float]] = defaultdict(list)
        self._since, self._waited = time.monotonic(), 0.0

    def next(self, batches: Batches, step: int) -> Any:
        begin = time.monotonic()
        try:
            return next(batches)
        except StopIteration:
            raise TrainingError(
                f"{self._name}: the data ended before step {step} of {self._stage.steps}; "
                "they must repeat"
            ) from None
        finally:
            self._waited += time.monotonic() - begin

    def compiled(self, program: Any) -> None:
        seconds = time.monotonic() - self._since - self._waited
        say(f"{self._name}: step compiled in {seconds:.1f} s")
        self._operations = speed.costs(program).operations
        self._begin()

    def settle(self, step: int, metrics: Metrics, *, flush: bool = True) -> None:
        """Waits for the metrics of a step; raises TrainingError when one is not finite."""
        values = {key: float(value) for key, value in jax.device_get(metrics).items()}
        # The loss first: it is the one to name when everything is lost.
        for key in sorted(values, key=lambda key: key != "loss"):
            value = values[key]
            if not math.isfinite(value):
                last = self._checkpoints.latest()
                good = f"step {last} in {self._folder}" if last else "none"
                raise TrainingError(
                    f"{self._name}: {key} is {value} at step {step}; last good checkpoint: {good}"
                )
            self._sums[key].append(value)
        if self._progress:
            self._progress.update(step, loss=values["loss"])
        if flush and step % self._stage.log_every == 0:
            self.flush(step, more={})

    def flush(self, step: int, *, more: Mapping[str, float]) -> dict[str, float]:
        """Logs the means since the last time, and returns them."""
        count = len(self._sums["loss"])
        means = {key: sum(values) / count for key, values in self._sums.items()}
        means |= {f"eval/{key}": float(value) for key, value in more.items()}
        seconds = (time.monotonic() - self._since) / count
        speeds = {"step_seconds": seconds, "data_wait_seconds": self._waited / count}
        speeds["device_teraflops_per_second"] = self._operations / seconds / 1e12
        if best := speed.limits(jax.devices()[0]):
            speeds["mfu"] = self._operations / seconds / best.operations
        if self._log:
            self._log.write(step, metrics=means | speeds)
        self._begin()
        return means

    def close(self) -> None:
        if self._progress and self._log:
            self._progress.close()
            self._log.close()
