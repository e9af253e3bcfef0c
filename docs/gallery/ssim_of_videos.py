"""
SSIM of two videos
==================

Structural similarity of predictions and true clips, by the definition of scikit-image (SPEC §6.1):
one value a clip.
"""

import matplotlib.pyplot as plt
import numpy as np

from glfa_jax.metrics.ssim import ssim
from glfa_jax.simulate import stimuli

# %%
# True clips of the simulated study: uint8 (clips, frames, height, width, 3).

rng = np.random.default_rng(0)
scenes = [stimuli.sample_scene(rng, index) for index in range(8)]
truth = np.stack([stimuli.render(scene) for scene in scenes])
print(truth.shape, truth.dtype)

# %%
# A clip equals itself (SSIM 1); noise lowers the value; other clips show what predictions without
# any information reach.

levels = (0, 5, 10, 20, 40, 80)
noisy = [
    np.clip(truth + level * rng.standard_normal(truth.shape), 0, 255).round().astype(np.uint8)
    for level in levels
]
values = [ssim(video, truth=truth) for video in noisy]
other = ssim(np.roll(truth, 1, axis=0), truth=truth)
for level, each in zip(levels, values, strict=True):
    print(f"noise {level:2d}: SSIM {each.mean():.3f} ± {each.std(ddof=1):.3f}")

figure, axis = plt.subplots(figsize=(5, 3.5), layout="constrained")
axis.errorbar(levels, [x.mean() for x in values], [x.std(ddof=1) for x in values], marker="o")
axis.axhline(other.mean(), color="black", linestyle="--", label="against other clips")
axis.set(xlabel="standard deviation of the noise (of 255)", ylabel="SSIM", ylim=(0, 1.05))
axis.legend()
plt.show()
