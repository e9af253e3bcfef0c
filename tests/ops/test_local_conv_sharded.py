"""The local layer on four devices: as on one, and no map leaves the device it is on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

_FOUR_DEVICES = """
import math, re, sys
from functools import partial
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from glfa_jax.ops import local_conv as module
from glfa_jax.ops import local_conv_gpu as gpu

if sys.argv[1] == "gpu":  # interpreted, with tiles as small as the maps
    gpu.ROWS, gpu.FRAMES, gpu.FRAME_WARPS, gpu.WARP = 2, 1, 1, 4
    for name in ("forward", "input_gradient", "weight_gradient"):
        setattr(gpu, name, partial(getattr(gpu, name), interpret=True))
    module._kernels = lambda implementation: gpu

assert jax.device_count() == 4
HEIGHT, WIDTH, KERNEL = 4, 6, 3
rng = np.random.default_rng(0)
x = rng.standard_normal((8, 3, HEIGHT, WIDTH), np.float32)
x *= rng.random(x.shape) > 0.3
theta = rng.standard_normal((KERNEL**2, HEIGHT, WIDTH), np.float32)

def loss(x, theta):
    y = module.local_conv(x, theta, kernel_size=KERNEL, implementation="tiled")
    return jnp.sum(y**2)

MOVES = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute|collective-broadcast"

def moved(text):
    "How many numbers each exchange between devices gives, one by one where it gives several."
    for line in text.splitlines():
        found = re.search(rf"= (.*?) (?:{MOVES})(?:-start|-done)?\\(", line)
        for shape in re.findall(r"\\[([\\d,]*)\\]", found[1]) if found else ():
            yield math.prod(int(size) for size in shape.split(",") if size)

step = jax.value_and_grad(loss, argnums=(0, 1))
one = jax.jit(step)(x, theta)
mesh = jax.make_mesh((2, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
frames = NamedSharding(mesh, P(("data", "fsdp")))
for spec in (P(), P(None, "fsdp"), P(None, None, "fsdp")):
    placed = jax.device_put((x, theta), (frames, NamedSharding(mesh, spec)))
    shardings = (None, tuple(a.sharding for a in placed))
    with jax.set_mesh(mesh):
        compiled = jax.jit(step, out_shardings=shardings).lower(*placed).compile()
        four = compiled(*placed)
    for ours, wanted in zip(jax.tree.leaves(four), jax.tree.leaves(one), strict=True):
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-5 * scale)
    sizes = set(moved(compiled.as_text()))
    # The loss, the weights and their gradient, the denominator: not the frames.
    assert theta.size in sizes and sizes <= {1, theta.size, HEIGHT * WIDTH}, sizes
# Frames that do not divide: every device has a share, none has all.
x = x[:6]
one = jax.jit(step)(x, theta)
mesh = jax.make_mesh((2, 2), ("data", "frame"), axis_types=(AxisType.Auto,) * 2)
placed = jax.device_put((x, theta), (NamedSharding(mesh, P("data")), NamedSharding(mesh, P())))
with jax.set_mesh(mesh):
    shardings = (None, tuple(a.sharding for a in placed))
    compiled = jax.jit(step, out_shardings=shardings).lower(*placed).compile()
    four = compiled(*placed)
for ours, wanted in zip(jax.tree.leaves(four), jax.tree.leaves(one), strict=True):
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
lengths = {int(n) for n in re.findall(rf"f32\\[(\\d+),{HEIGHT},{WIDTH}\\]", compiled.as_text())}
assert 5 in lengths and 18 not in lengths, lengths
# The parser sees a gather where there is one, of several arrays too.
gather = jax.jit(lambda a, b: (a, b), out_shardings=NamedSharding(mesh, P()))
assert x.size in set(moved(gather.lower(placed[0], placed[0] + 1).compile().as_text()))
assert list(moved("%a = (f32[2,3]{1,0}, /*index=1*/f32[]) all-gather-start(%b, %c)")) == [6, 1]
"""


@pytest.mark.parametrize("kernels", ["tiled", "gpu"])
def test_four_devices_equal_one_and_frames_stay_where_they_are(kernels):
    env = os.environ | {"JAX_NUM_CPU_DEVICES": "4"}
    command = [sys.executable, "-c", _FOUR_DEVICES, kernels]
    run = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True)
    assert run.returncode == 0, run.stderr
