"""What the time to compile a full-size step of stage 2 is spent on, part by part, for a TPU.

    python -m benchmarks.compile_time --compile-only v5e:1x1

Compiles forward and backward pass of every kind of layer of the generator at each of its widths,
and the optimizer's update, each by itself, at the sizes of `configs/wen2018.yaml` with two windows.
A step holds as many of each as the column says; all differ in their parameters and many in their
shapes. Needs libtpu (`pip install -e '.[tpu]'`) and no TPU.
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
WINDOWS, FRAMES = 2, 6
# Width and side of the latents at each resolution of ModelScope's UNet, and how many of each kind
# of layer it has there: down, middle, up.
LEVELS = {
    (320, 32): {"resnet": 5, "temporal convolution": 5, "spatial": 5, "temporal": 6},
    (640, 16): {"resnet": 5, "temporal convolution": 5, "spatial": 5, "temporal": 5},
    (1280, 8): {"resnet": 5, "temporal convolution": 5, "spatial": 5, "temporal": 5},
    (1280, 4): {"resnet": 7, "temporal convolution": 7, "spatial": 1, "temporal": 1},
}
DTYPE = jnp.bfloat16


def layer(kind: str, width: int) -> tuple[Any, tuple[jax.ShapeDtypeStruct, ...]]:
    """A layer and the shapes of what it takes beside the activations."""
    heads = width // 64
    if kind == "resnet":
        time = jax.ShapeDtypeStruct((WINDOWS, 1280), DTYPE)
        return ResnetBlock(width, 32, 1e-5, dtype=DTYPE), (time,)
    if kind == "temporal convolution":
        return TemporalConv(32, dtype=DTYPE), ()
    if kind == "spatial":
        tokens = jax.ShapeDtypeStruct((WINDOWS, 77, 1024), DTYPE)
        return SpatialTransformer(64, 32, dtype=DTYPE), (tokens,)
    return TemporalTransformer(heads, 64, 32, dtype=DTYPE), ()


def seconds_to_compile(
    function: Callable[..., Any], *shapes: Any, mesh: Any, donate: tuple[int, ...] = ()
) -> float:
    where = replicated(mesh)
    placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), shapes)
    lowered = jax.jit(function, donate_argnums=donate).lower(*placed)
    start = time.process_time()
    lowered.compile()
    return time.process_time() - start


def of_layer(kind: str, width: int, side: int, *, mesh: Any) -> float:
    module, given = layer(kind, width)
    x = jax.ShapeDtypeStruct((WINDOWS, FRAMES, side, side, width), DTYPE)
    params = jax.eval_shape(module.init, jax.random.key(0), x, *given)

    def loss(params: Any, x: Any, *given: Any) -> Any:
        return jnp.square(module.apply(params, x, *given)).mean(dtype=jnp.float32)

    return seconds_to_compile(jax.grad(loss, argnums=(0, 1)), params, x, *given, mesh=mesh)


def of_update(settings: config.Config, *, mesh: Any) -> tuple[float, int]:
    """AdamW over all that trains, and how many arrays that is."""
    step = cotrain.step_of(settings)
    moments = settings.hardware.moment_dtype
    stage = settings.cotrain
    optim = optimizer(stage, trainable=step.params, groups=step.groups, moment_dtype=moments)
    state = abstract_state(step.params, optim, mesh, settings.hardware)

    def update(params: Any, opt_state: Any, gradients: Any) -> Any:
        updates, after = optim.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), after

    shapes = (state.params, state.opt_state, state.params)
    found = seconds_to_compile(update, *shapes, mesh=mesh, donate=(0, 1))
    return found, len(jax.tree.leaves(step.params))


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--compile-only", default="v5e:1x1", metavar="SLICE")
    given = options.parse_args()
    settings = config.load(CONFIG)
    mesh = make_mesh(settings.hardware.mesh, devices=devices_of(given.compile_only)[:1])
    rows = []
    for (width, side), counts in LEVELS.items():
        for kind, count in counts.items():
            each = of_layer(kind, width, side, mesh=mesh)
            rows.append((f"{kind}, {width} at {side} x {side}", count, each, count * each))
            print(rows[-1], flush=True)
    each, arrays = of_update(settings, mesh=mesh)
    rows.append((f"AdamW's update of {arrays} arrays", 1, each, each))
    rows.append(("sum", "", "", sum(row[3] for row in rows)))
    shown = [[x if isinstance(x, str | int) else f"{x:.1f}" for x in row] for row in rows]
    print(table(("part", "how many", "seconds of processor time each", "together"), shown))
    result = {"slice": given.compile_only, "parts": [list(row) for row in rows]}
    write_result(given.json, result, packages=("jax", "jaxlib", "libtpu"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
