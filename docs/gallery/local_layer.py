"""
The local layer against lax
===========================

GLFA's local layer is a convolution with separate weights at every pixel (SPEC §2.2). The package
computes it in tiles that stay in the cache; ``implementation="reference"`` does the same in one
call of ``lax``.
"""

from time import perf_counter

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

from glfa_jax.ops.local_conv import local_conv

SIZE, KERNEL, MAPS = 64, 13, 8

row, column = jnp.mgrid[:SIZE, :SIZE] / SIZE - 0.5
mask = jnp.hypot(row, column) < 0.45
maps = jax.random.normal(jax.random.key(0), (MAPS, SIZE, SIZE)) * mask
theta = 0.05 * jax.random.normal(jax.random.key(1), (KERNEL**2, SIZE, SIZE))


def run(implementation):
    """The result, and the seconds of a call after compilation."""
    apply = jax.jit(
        lambda x, theta: local_conv(x, theta, kernel_size=KERNEL, implementation=implementation)
    )
    apply(maps, theta).block_until_ready()
    begin = perf_counter()
    result = apply(maps, theta).block_until_ready()
    return result, perf_counter() - begin


# %%
# Both give the same values, and pixels outside the cortex stay zero.

reference, slow = run("reference")
tiled, fast = run("tiled")
difference = float(jnp.abs(tiled - reference).max())
print(f"largest difference {difference:.1e}")
print(f"{slow * 1e3:.1f} ms by lax, {fast * 1e3:.1f} ms in tiles")
assert (tiled[:, ~mask] == 0).all()

# %%
# With θ = 0 the layer is the identity. Otherwise each output pixel is a convex combination of the
# pixels around it, so no value leaves the range of the input.

identity = local_conv(maps, jnp.zeros_like(theta), kernel_size=KERNEL)
assert jnp.allclose(identity, maps, atol=1e-6)
assert jnp.abs(tiled).max() <= jnp.abs(maps).max()

figure, axes = plt.subplots(1, 2, figsize=(6.5, 3.2), layout="constrained")
for axis, values, title in zip(axes, (maps[0], tiled[0]), ("input", "output"), strict=True):
    axis.imshow(jnp.where(mask, values, jnp.nan), cmap="RdBu_r", vmin=-2, vmax=2)
    axis.set(title=title, xticks=[], yticks=[])
plt.show()
