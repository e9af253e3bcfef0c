"""The one training loop of all stages."""

import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from glfa_jax import config
from glfa_jax.training.checkpoints import Checkpoints, mark_done, read_done, unmark_done
from glfa_jax.training.logs import Log, Progress, write_atomically
from glfa_jax.training.optim import Group, optimizer
from glfa_jax.training.sharding import (
    make_mesh,
    param_shardings,
    place_batch,
    place_params,
    replicated,
)
from glfa_jax.training.state import TrainingError, TrainState

Metrics = dict[str, jax.Array]
LossFn = Callable[[dict, Any, Any, jax.Array], tuple[jax.Array, Metrics]]
EvalHook = Callable[[int, TrainState], Mapping[str, float]]


class Batches(Protocol):
    """An endless iterator whose position is a JSON value."""

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
    mesh: Mesh | None = None,
    eval_hook: EvalHook | None = None,
) -> TrainState:
    """Trains to `stage.steps`, going on from the last checkpoint in `folder` if there is one.

    Going on gives bit for bit what never having stopped gives, on the same number of devices. A
    stage that is finished is not run again.

    init: makes the trainable parameters from a key, or is them.
    frozen: whatever else the loss needs from the device, passed on as it is.
    loss_fn: (trainable, frozen, batch, key) to the loss and a dict of scalars to log.
    fingerprint: JSON values on which a checkpoint must agree, such as the identity of the data.
    eval_hook: (step, state) to more scalars to log, called at each save; may not keep the state.

    Raises TrainingError when a metric is not finite, the data end, or the folder is another run's.
    """
    mesh = mesh or make_mesh()
    folder.mkdir(parents=True, exist_ok=True)
    root = jax.random.key(seed)
    # Steps use fold_in(root, step): no run is long enough to meet this number.
    init_key = jax.random.fold_in(root, 2**32 - 1)
    shapes = jax.eval_shape(init, init_key) if callable(init) else jax.eval_shape(_same, init)
    optim = optimizer(stage, trainable=shapes, groups=groups)
    abstract = _abstract(shapes, optim, mesh)
    checkpoints = Checkpoints(
        folder,
        keep=stage.keep,
        fingerprint={
            "name": name,
            "seed": seed,
            "stage": stage.model_dump(mode="json", exclude=_harmless_in(stage)),
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
        unmark_done(folder)
        if start:
            print(f"{name}: going on from step {first}", flush=True)
            batches.set_state(start.data_state)
            state, metrics = start.state, start.metrics
        else:
            state, metrics = _initial(init, init_key, optim, abstract, mesh), {}
        step_fn = _jitted_step(loss_fn, optim, abstract, mesh)
        frozen = place_params(frozen, mesh, copy=False)
        root = jax.device_put(root, replicated(mesh))
        watch = _Watch(name, folder, stage, first, checkpoints)
        running: Metrics | None = None
        try:
            for step in range(first + 1, stage.steps + 1):
                batch = place_batch(watch.next(batches, step), mesh)
                state, started = step_fn(state, frozen, batch, root)
                if step == first + 1:
                    watch.compiled()
                # The device works on this step while the host looks at the one before.
                if running is not None:
                    watch.settle(step - 1, running)
                running = started
                if step == stage.steps or step % stage.save_every == 0:
                    watch.settle(step, running, flush=False)
                    running = None
                    metrics = watch.flush(step, more=eval_hook(step, state) if eval_hook else {})
                    checkpoints.save(
                        step, state=state, data_state=batches.get_state(), metrics=metrics
                    )
        finally:
            watch.close()
        checkpoints.latest()
        mark_done(folder, step=stage.steps, metrics=metrics)
        print(f"{name}: finished, step {stage.steps}", flush=True)
        return state
    finally:
        checkpoints.close()


def finished(name: str, folder: Path, *, stage: config.Stage) -> bool:
    """Whether the stage has run to its last step; says so. Skips it before anything is loaded."""
    done = read_done(folder)
    if done is None or done.step != stage.steps:
        return False
    print(f"{name}: finished already, step {done.step}", flush=True)
    return True


def refuse_if_changed(folder: Path, ours: config.Section, *, ignore: tuple[str, ...] = ()) -> None:
    """Writes `folder/config.yaml`, after `check_unchanged`."""
    check_unchanged(folder, ours, ignore=ignore)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "config.yaml", config.dump(ours))


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
                f"{folder}: was written by another version of the program ({error}); "
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
    more = {"steps"} if stage.decay == "constant" else set()
    return {"log_every", "save_every", "keep"} | more


def _harmless(key: str, ours: config.Section) -> bool:
    section, _, option = key.rpartition(".")
    stage = getattr(ours, section, None)
    return (
        key in ("name", "run_dir")
        or section == "evaluation"
        or (isinstance(stage, config.Stage) and option in _harmless_in(stage))
    )


def use_compilation_cache(folder: Path = Path(".cache/jax")) -> None:
    """Keeps compiled programs between runs; JAX_COMPILATION_CACHE_DIR overrides the folder."""
    jax.config.update(
        "jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(folder)
    )
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


class _Watch:
    """The host's view of a run: waits for data, looks at metrics, logs their means."""

    def __init__(
        self, name: str, folder: Path, stage: config.Stage, first: int, checkpoints: Checkpoints
    ):
        self._name, self._stage, self._checkpoints = name, stage, checkpoints
        self._log = Log(folder, step=first)
        self._progress = Progress(name, step=first, steps=stage.steps)
        self._folder = folder
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

    def compiled(self) -> None:
        seconds = time.monotonic() - self._since - self._waited
        print(f"{self._name}: first step compiled in {seconds:.1f} s", flush=True)
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
        self._progress.update(step, loss=values["loss"])
        if flush and step % self._stage.log_every == 0:
            self.flush(step, more={})

    def flush(self, step: int, *, more: Mapping[str, float]) -> dict[str, float]:
        """Logs the means since the last time, and returns them."""
        count = len(self._sums["loss"])
        means = {key: sum(values) / count for key, values in self._sums.items()}
        means |= {f"eval/{key}": float(value) for key, value in more.items()}
        seconds = {
            "step_seconds": (time.monotonic() - self._since) / count,
            "data_wait_seconds": self._waited / count,
        }
        self._log.write(step, metrics=means | seconds)
        self._begin()
        return means

    def close(self) -> None:
        self._progress.close()
        self._log.close()


def _same(tree: Any) -> Any:
    return tree


def _abstract(params: dict, optim: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Shapes, types and shardings of the whole state."""
    shapes = TrainState(
        step=cast(Any, jax.ShapeDtypeStruct((), jnp.int32)),
        params=params,
        opt_state=jax.eval_shape(optim.init, params),
    )
    return jax.tree.map(
        lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
        shapes,
        param_shardings(shapes, mesh),
    )


def _initial(
    init: Callable[[jax.Array], dict] | dict,
    key: jax.Array,
    optim: optax.GradientTransformation,
    abstract: TrainState,
    mesh: Mesh,
) -> TrainState:
    """Made in place: no device ever holds more than its share."""
    where = jax.tree.map(lambda x: x.sharding, abstract)
    if callable(init):
        params = jax.jit(init, out_shardings=where.params)(key)
    else:
        params = place_params(init, mesh, copy=True)
    opt_state = jax.jit(optim.init, out_shardings=where.opt_state)(params)
    return TrainState(jax.device_put(jnp.int32(0), where.step), params, opt_state)


def _jitted_step(
    loss_fn: LossFn, optim: optax.GradientTransformation, abstract: TrainState, mesh: Mesh
) -> Callable[[TrainState, Any, Any, jax.Array], tuple[TrainState, Metrics]]:
    def step_fn(
        state: TrainState, frozen: Any, batch: Any, root: jax.Array
    ) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(root, state.step)
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # operations may ask for it
            (loss, metrics), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
                state.params, frozen, batch, key
            )
        updates, opt_state = optim.update(gradients, state.opt_state, state.params)
        params = cast(dict, optax.apply_updates(state.params, updates))
        metrics = {"loss": loss, "gradient_norm": optax.tree.norm(gradients), **metrics}
        return TrainState(state.step + 1, params, opt_state), metrics

    where = jax.tree.map(lambda x: x.sharding, abstract)
    return jax.jit(step_fn, donate_argnums=0, out_shardings=(where, replicated(mesh)))
