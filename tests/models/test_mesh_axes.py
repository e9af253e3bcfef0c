"""Four devices that share the maps of a row, or the frames of a clip."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

_START = """
import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from tests.gradients import draw, error

def check(step, params, x, shares, moves):
    "As on one device, each with its share of the operations; which exchanges there are."
    alone = jax.jit(step).lower(params, x).compile()
    wanted, work = alone(params, x), alone.cost_analysis()["flops"]
    for sizes, share in shares.items():
        mesh = jax.make_mesh(sizes, ("data", "fsdp", "frame"), axis_types=(AxisType.Auto,) * 3)
        where = NamedSharding(mesh, P()), NamedSharding(mesh, P("data", *moves))
        placed = jax.device_put((params, x), where)
        with jax.set_mesh(mesh):
            compiled = jax.jit(step).lower(*placed).compile()
        assert error(compiled(*placed), wanted) < 1e-5, sizes
        of_one = compiled.cost_analysis()["flops"] / work
        assert of_one < share + 0.05, (sizes, of_one)
        if moves:
            assert "all-gather" not in compiled.as_text(), sizes
"""

_ENCODER = """
from glfa_jax.models.fmri_autoencoder import FmriAutoencoder

module = FmriAutoencoder(16, 16, 8, 16, 2, num_heads=2, dropout=0.2, decoder=False, remat=True)
# Two subjects' windows of three maps make six in a row: two each, and the fourth device has none.
(fmri,) = draw((2, 2, 3, 16, 16))
params = jax.jit(lambda key: module.init(key, fmri, method="encode"))(jax.random.key(0))

def loss(params, x):
    rngs = {"dropout": jax.random.key(1)}
    y = module.apply(params, x, deterministic=False, method="encode", rngs=rngs)
    return jnp.sin(y).sum()  # a sum of squares of normed features is a constant

step = jax.value_and_grad(loss, argnums=(0, 1))
check(step, params, fmri, {(1, 1, 4): 2 / 6, (2, 1, 2): 1 / 4}, ())
"""

_CONVOLUTIONS = """
from glfa_jax.models.convolution import Conv
from glfa_jax.models.mesh_axes import to_frames, to_pixels

space, time = Conv(8, (3, 3), padding=1, name="space"), Conv(8, (3,), padding=1, name="time")
x, k, l = draw((4, 4, 8, 8, 8), (3, 3, 8, 8), (3, 8, 8))
k, l = k / 9, l / 5  # for sines of a few: sines of hundreds would magnify float32's rounding

def loss(kernels, x):
    y = space.apply({"params": {"kernel": kernels[0], "bias": jnp.ones(8)}}, x)
    y = time.apply({"params": {"kernel": kernels[1], "bias": jnp.ones(8)}}, to_pixels(y))
    return jnp.sin(to_frames(y)).sum()

step = jax.value_and_grad(loss, argnums=(0, 1))
check(step, (k, l), x, {(1, 1, 4): 1 / 4, (2, 1, 2): 1 / 4}, ("frame",))
"""

# Every position attends to all of its clip, so devices swap frames for heads and back.
_BLOCK = """
from glfa_jax.models.mesh_axes import shard
from glfa_jax.models.rotary import rotary
from glfa_jax.models.wan_blocks import WanBlock

module = WanBlock(4, 8, 48, 1e-6, cross_attn_norm=True)
x, *others = draw((4, 4, 6, 32), (4, 6, 32), (4, 2, 32))

def of(function, params, x, others):
    modulation, context = map(shard, others)
    given = {"modulation": modulation, "context": context, "rotary": rotary((4, 2, 3), 8)}
    return function(params, x, **given)

def loss(given, x):
    y = of(module.apply, given[0], x, given[1])
    return (jnp.sin(y / 8) ** 2).sum()  # sines of a few, as above

params = jax.jit(lambda key: of(module.init, key, x, others))(jax.random.key(0))
step = jax.value_and_grad(loss, argnums=(0, 1))
check(step, (params, others), x, {(1, 1, 4): 1 / 4, (2, 1, 2): 1 / 4}, ("frame",))
"""


@pytest.mark.parametrize(
    "layers", [_ENCODER, _CONVOLUTIONS, _BLOCK], ids=["encoder", "convolutions", "wan block"]
)
def test_devices_along_frame_share_the_work(layers: str) -> None:
    """No convolution, and no attention over time, gathers the frames of others."""
    env = os.environ | {"JAX_NUM_CPU_DEVICES": "4"}
    command = [sys.executable, "-c", _START + layers]
    run = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True)
    assert run.returncode == 0, run.stderr
