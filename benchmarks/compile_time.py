"""What compiling a layer of the generator for a TPU costs: the first of a shape, and each more.

    python -m benchmarks.compile_time --compile-only v5e:1x1

Compiles the forward and backward pass of one layer, and of three such layers one after the other
with parameters of their own, at sizes of `configs/wen2018.yaml` with two windows: what a loop over
equal layers could save is what each more costs. And AdamW's update of all that trains there. Needs
libtpu (`pip install -e '.[tpu]'`), no TPU.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.measuring import parser, table, write_result
from glfa_jax import config
from glfa_jax.models.unet3d_blocks import (
    ResnetBlock,
    SpatialTransformer,
    TemporalConv,
    TemporalTransformer,
)
from glfa_jax.stages import cotrain
from glfa_jax.training.compile_only import devices_of
from glfa_jax.training.optim import optimizer
from glfa_jax.training.sharding import make_mesh, replicated
from glfa_jax.training.step import abstract_state

CONFIG = Path(__file__).parents[1] / "configs" / "wen2018.yaml"
WINDOWS, FRAMES, DTYPE, MORE = 2, 6, jnp.bfloat16, 3
KINDS = ("resnet", "temporal convolution", "spatial transformer", "temporal transformer")
SIZES = ((320, 32), (1280, 8))  # width, side of the latents


def layer(kind: str, width: int) -> tuple[Any, tuple[jax.ShapeDtypeStruct, ...]]:
    """A layer and the shapes of what it takes beside the activations."""
    if kind == "resnet":
        time = jax.ShapeDtypeStruct((WINDOWS, 1280), DTYPE)
        return ResnetBlock(width, 32, 1e-5, dtype=DTYPE), (time,)
    if kind == "temporal convolution":
        return TemporalConv(32, dtype=DTYPE), ()
    if kind == "spatial transformer":
        tokens = jax.ShapeDtypeStruct((WINDOWS, 77, 1024), DTYPE)
        return SpatialTransformer(64, 32, dtype=DTYPE), (tokens,)
    return TemporalTransformer(width // 64, 64, 32, dtype=DTYPE), ()


def seconds_to_compile(function: Callable[..., Any], *shapes: Any, mesh: Any, **options: Any):
    """Of processor time."""
    where = replicated(mesh)
    placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), shapes)
    lowered = jax.jit(function, **options).lower(*placed)
    start = time.process_time()
    lowered.compile()
    return time.process_time() - start


def of_layers(kind: str, width: int, side: int, *, count: int, mesh: Any) -> float:
    module, given = layer(kind, width)
    x = jax.ShapeDtypeStruct((WINDOWS, FRAMES, side, side, width), DTYPE)
    params = jax.eval_shape(module.init, jax.random.key(0), x, *given)

    def loss(params: list, x: Any, *given: Any) -> Any:
        for own in params:
            x = module.apply(own, x, *given)
        return jnp.square(x).mean(dtype=jnp.float32)

    gradient = jax.grad(loss, argnums=(0, 1))
    return seconds_to_compile(gradient, [params] * count, x, *given, mesh=mesh)


def of_update(settings: config.Config, *, mesh: Any) -> tuple[float, int]:
    """AdamW over all that trains, and how many arrays that is."""
    step, stage, hardware = cotrain.step_of(settings), settings.cotrain, settings.hardware
    optim = optimizer(
        stage, trainable=step.params, groups=step.groups, moment_dtype=hardware.moment_dtype
    )
    state = abstract_state(step.params, optim, mesh, hardware)

    def update(params: Any, opt_state: Any, gradients: Any) -> Any:
        updates, after = optim.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), after

    shapes = (state.params, state.opt_state, state.params)
    found = seconds_to_compile(update, *shapes, mesh=mesh, donate_argnums=(0, 1))
    return found, len(jax.tree.leaves(step.params))


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--compile-only", default="v5e:1x1", metavar="SLICE")
    given = options.parse_args()
    settings = config.load(CONFIG)
    mesh = make_mesh(settings.hardware.mesh, devices=devices_of(given.compile_only)[:1])
    rows = []
    for width, side in SIZES:
        for kind in KINDS:
            first = of_layers(kind, width, side, count=1, mesh=mesh)
            all_of_them = of_layers(kind, width, side, count=MORE, mesh=mesh)
            each = (all_of_them - first) / (MORE - 1)
            rows.append((kind, f"{width} at {side} x {side}", round(first, 1), round(each, 1)))
            print(rows[-1], flush=True)
    seconds, arrays = of_update(settings, mesh=mesh)
    rows.append(("AdamW's update", f"{arrays} arrays", round(seconds, 1), None))
    print(table(("layer", "channels", "the first, s", "each more, s"), rows))
    names = ("part", "size", "first_seconds", "each_more_seconds")
    found = [dict(zip(names, row, strict=True)) for row in rows]
    result = {"slice": given.compile_only, "processor_time": found}
    write_result(given.json, result, packages=("jax", "jaxlib"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
