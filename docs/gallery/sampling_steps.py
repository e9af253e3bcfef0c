"""
How many sampling steps?
========================

A noise schedule says how much of a clean latent is left at each training step. A sampler goes back
from noise with few evaluations of the network. For normally distributed latents the ideal
prediction and the exact answer have closed forms, so the error of a sampler can be measured.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from glfa_jax.diffusion.sampler import sample
from glfa_jax.diffusion.schedule import MODELSCOPE

MEAN, SPREAD = 1.0, 0.5  # of the clean latents

# %%
# The ideal prediction of the noise in x, for latents drawn from N(MEAN, SPREAD²).


def ideal(x, t):
    signal, noise = MODELSCOPE.signal_and_noise(t)
    variance = (signal * SPREAD) ** 2 + noise**2
    return noise * (x - signal * MEAN) / variance


# %%
# The exact path keeps the number of standard deviations from the mean.

start = jax.random.normal(jax.random.key(0), (1000,))
last = MODELSCOPE.alphas_cumprod[-1]
deviations = (start - np.sqrt(last) * MEAN) / np.sqrt(last * SPREAD**2 + 1 - last)
exact = MEAN + SPREAD * deviations

steps = (5, 10, 25, 50, 100)


def error(method, n):
    """Mean over latents of the distance from the exact answer."""
    found = sample(ideal, start, schedule=MODELSCOPE, steps=n, method=method)
    return float(jnp.abs(found - exact).mean())


errors = {method: [error(method, n) for n in steps] for method in ("ddim", "dpm++")}
for method, each in errors.items():
    print(method, " ".join(f"{n}: {e:.4f}" for n, e in zip(steps, each, strict=True)))

# %%
# Left, the schedule of ModelScope; right, the mean error of both samplers.

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
left.plot(np.sqrt(MODELSCOPE.alphas_cumprod), label="signal")
left.plot(np.sqrt(1 - MODELSCOPE.alphas_cumprod), label="noise")
left.set(xlabel="training step", ylabel="factor")
left.legend()
for method, each in errors.items():
    right.loglog(steps, each, marker="o", label=method)
right.set(xlabel="sampling steps", ylabel="mean error")
right.legend()
plt.show()
