"""The truth of a simulated study, as arrays beside the data."""

from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from glfa_jax.simulate.cortex import Cortex
from glfa_jax.simulate.subjects import Subject
from glfa_jax.simulate.writing import write_arrays


def write_truth(
    path: Path,
    subject: Subject,
    *,
    power: Float[ndarray, " r"],
    own_share: Float[ndarray, " r"] | None = None,
) -> None:
    """power: variance of the noiseless signal, in units of the canonical signal's.

    own_share: of that variance, what stems from tuning that no other subject has.
    """
    # Correlation of one volume with its noiseless self.
    ceiling = np.sqrt(power / (power + subject.noise**2)) if subject.noise else np.ones(len(power))
    arrays = {
        "displacement": subject.displacement,
        "patch_target": subject.patch_target,
        "patch_target_side": subject.patch_target_side,
        "patch_source": subject.patch_source,
        "patch_source_side": subject.patch_source_side,
        "patch_weight": np.array(subject.patch_weight),
        "gain": subject.gain,
        "noise": np.array(subject.noise),
        "noise_ceiling": ceiling,
    }
    # What a world does not have is not written, so that its files stay as they always were.
    if subject.patchwork is not None:
        arrays |= {"area": subject.patchwork.area, "tuned_as": subject.patchwork.tuned_as}
    if subject.anatomy is not None:
        arrays |= {
            "curvature": subject.anatomy.curvature,
            "myelin": subject.anatomy.myelin,
            "anatomy_says": subject.anatomy.says,
        }
    if own_share is not None:
        arrays["own_share"] = own_share
    write_arrays(path, **arrays)


def write_canonical(path: Path, cortex: Cortex) -> None:
    """What places mean, for all subjects."""
    write_arrays(
        path,
        vertices=cortex.vertices,
        side=cortex.side,
        canonical=cortex.canonical,
        parts=cortex.parts(cortex.canonical),
    )
