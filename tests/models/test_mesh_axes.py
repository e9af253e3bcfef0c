"""The fMRI encoder on four devices that share the maps of a row."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FOUR_DEVICES = """
import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from glfa_jax.models.fmri_autoencoder import FmriAutoencoder
from tests.gradients import draw, error

module = FmriAutoencoder(
    16, 16, 8, 16, 2, num_heads=2, dropout=0.2, decoder=False, remat=True
)
# Two subjects' windows of three maps make six in a row: two each, and the fourth device has none.
fmri, = draw((2, 2, 3, 16, 16))
params = jax.jit(lambda key: module.init(key, fmri, method="encode"))(jax.random.key(0))

def loss(params, x):
    y = module.apply(
        params, x, deterministic=False, method="encode", rngs={"dropout": jax.random.key(1)}
    )
    return jnp.sin(y).sum()  # a sum of squares of normed features is a constant

step = jax.value_and_grad(loss, argnums=(0, 1))
alone = jax.jit(step).lower(params, fmri).compile()
wanted, work = alone(params, fmri), alone.cost_analysis()["flops"]
for sizes, share in (((1, 1, 4), 2 / 6), ((2, 1, 2), 1 / 4)):
    mesh = jax.make_mesh(sizes, ("data", "fsdp", "frame"), axis_types=(AxisType.Auto,) * 3)
    where = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))
    placed = jax.device_put((params, fmri), where)
    with jax.set_mesh(mesh):
        compiled = jax.jit(step).lower(*placed).compile()
    assert error(compiled(*placed), wanted) < 1e-5, sizes
    of_one = compiled.cost_analysis()["flops"] / work
    assert of_one < share + 0.05, (sizes, of_one)
"""


def test_devices_along_frame_share_the_maps_of_a_row() -> None:
    env = os.environ | {"JAX_NUM_CPU_DEVICES": "4"}
    command = [sys.executable, "-c", _FOUR_DEVICES]
    run = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True)
    assert run.returncode == 0, run.stderr
