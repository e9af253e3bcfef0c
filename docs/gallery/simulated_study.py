"""
Maps of a simulated study
=========================

Two simulated subjects watch the same clips. The study is written as a BIDS derivative, read by the
ordinary reader, and prepared as a store of maps and clips.
"""

from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt
import numpy as np

from glfa_jax import config
from glfa_jax.preparation import prepare

folder = Path(mkdtemp())
store = prepare(
    config.Data(
        root=folder / "study",
        store=folder / "store.zarr",
        subjects=("01", "02"),
        map_size=64,
        window=3,
        resolution=(64, 64),
        simulation=config.Simulation(
            subjects=2, train_runs=1, test_runs=1, clips_per_run=8, noise=0.5, displacement=2.0
        ),
    ),
    progress=False,
)

# %%
# Windows of all test clips, for both subjects: z-scored maps, zero outside the cortex.

windows = store.fmri("test", range(store.num_clips("test")), subjects=["01", "02"])
windows = windows.astype(np.float32)
print("clips, subjects, volumes, height, width:", windows.shape)
assert (windows[..., ~store.mask] == 0).all()

# %%
# Inter-subject correlation (ISC): at each pixel, the correlation of both subjects' values over the
# volumes of all clips.

pixels = np.moveaxis(windows[..., store.mask], 1, 0).reshape(2, -1, store.mask.sum())
first, second = (pixels - pixels.mean(1, keepdims=True)) / pixels.std(1, keepdims=True)
isc = np.full(store.mask.shape, np.nan)
isc[store.mask] = (first * second).mean(0)
print(f"mean ISC: {np.nanmean(isc):.2f}")

# %%
# One clip's maps of both subjects, and the ISC.

figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
shown = np.where(store.mask, windows[0, :, 1], np.nan)
titles = ("subject 01", "subject 02", "ISC")
for axis, values, title in zip(axes, (*shown, isc), titles, strict=True):
    limit = 1 if title == "ISC" else 3
    image = axis.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit)
    axis.set(title=title, xticks=[], yticks=[])
    figure.colorbar(image, ax=axis, shrink=0.8)
plt.show()
