"""One training step as one compiled program, and the state that it takes and gives."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from jax.extend.core import ClosedJaxpr
from jax.sharding import AbstractMesh, Mesh

from glfa_jax import config
from glfa_jax.training import cpu_libraries
from glfa_jax.training.sharding import param_shardings, place, replicated
from glfa_jax.training.state import TrainState

# Without these XLA:CPU (jaxlib 0.10) undoes rematerialisation: its scheduler computes at once what
# could wait for the backward pass, and what is computed anew is merged with what was there.
_REMAT_ON_CPU = {
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
    "xla_disable_hlo_passes": "cse",
}

Metrics = dict[str, jax.Array]
LossFn = Callable[[dict, Any, Any, jax.Array], tuple[jax.Array, Metrics]]


def abstract_state(
    params: dict,
    optim: optax.GradientTransformation,
    mesh: Mesh | AbstractMesh,
    hardware: config.Hardware,
) -> TrainState:
    """Shapes, types and shardings of the whole state."""
    shapes = TrainState(
        step=cast(Any, jax.ShapeDtypeStruct((), jnp.int32)),
        params=params,
        opt_state=jax.eval_shape(optim.init, params),
    )
    return jax.tree.map(
        lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
        shapes,
        param_shardings(
            shapes, mesh, rules=hardware.sharding, from_bytes=hardware.shard_from_bytes
        ),
    )


def initial_state(
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
        params = jax.tree.map(partial(place, copy=True), init, where.params)
    opt_state = jax.jit(optim.init, out_shardings=where.opt_state)(params)
    return TrainState(jax.device_put(jnp.int32(0), where.step), params, opt_state)


def compiler_options(mesh: Mesh, hardware: config.Hardware, program: ClosedJaxpr) -> dict[str, str]:
    """What the compiler of these devices must be told so that `hardware.remat` saves memory, and a
    CPU computes with the libraries that suit the step, which is `program`."""
    platform = mesh.devices.flat[0].platform
    libraries = cpu_libraries.compiler_options(platform, program)
    return libraries | (_REMAT_ON_CPU if platform == "cpu" and hardware.remat else {})


def matmul_precision(hardware: config.Hardware) -> AbstractContextManager[Any]:
    """In which programs are traced whose products have the precision that is asked for."""
    asked = hardware.matmul_precision
    return nullcontext() if asked is None else jax.default_matmul_precision(asked)


def jitted_step(
    loss_fn: LossFn,
    optim: optax.GradientTransformation,
    abstract: TrainState,
    mesh: Mesh,
    *,
    accumulate: int,
) -> Any:
    """(state, frozen, batch, root key) to (state, metrics); the state is donated."""

    def gradients_of(params: dict, frozen: Any, batch: Any, key: jax.Array) -> tuple[dict, Metrics]:
        (loss, metrics), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
            params, frozen, batch, key
        )
        return gradients, {"loss": loss, **metrics}

    def in_parts(params: dict, frozen: Any, batch: Any, key: jax.Array) -> tuple[dict, Metrics]:
        """Means over parts of the batch; every device cuts the rows that it has."""

        def add(total: Any, part: tuple[jax.Array, Any]) -> tuple[Any, None]:
            number, rows = part
            found = gradients_of(params, frozen, rows, jax.random.fold_in(key, number))
            return jax.tree.map(jnp.add, total, found), None

        parts = jax.tree.map(
            lambda x: jnp.swapaxes(x.reshape(len(x) // accumulate, accumulate, *x.shape[1:]), 0, 1),
            batch,
        )
        first = jax.tree.map(lambda x: x[0], parts)
        empty = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype),
            jax.eval_shape(gradients_of, params, frozen, first, key),
        )
        total, _ = jax.lax.scan(add, empty, (jnp.arange(accumulate), parts))
        return jax.tree.map(lambda x: x / accumulate, total)

    def step_fn(
        state: TrainState, frozen: Any, batch: Any, root: jax.Array
    ) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(root, state.step)
        compute = gradients_of if accumulate == 1 else in_parts
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # operations may ask for it
            gradients, metrics = compute(state.params, frozen, batch, key)
        updates, opt_state = optim.update(gradients, state.opt_state, state.params)
        params = cast(dict, optax.apply_updates(state.params, updates))
        metrics["gradient_norm"] = optax.tree.norm(gradients)
        return TrainState(state.step + 1, params, opt_state), metrics

    where = jax.tree.map(lambda x: x.sharding, abstract)
    return jax.jit(step_fn, donate_argnums=0, out_shardings=(where, replicated(mesh)))
