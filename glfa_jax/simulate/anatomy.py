"""The anatomy of simulated subjects: maps of curvature and myelin, and what they say of function.

Where anatomy says something, the displacement is in part a fixed function of the two maps. It is
local, linear and the same for all subjects and both hemispheres:

    forward = curvature + STEEP * slope of myelin going up
    up      = myelin - STEEP * slope of curvature going forward

of maps as z-scores and slopes per ANATOMY_SCALE, so that values at a vertex tell one part of it and
only its surroundings tell the rest.
"""

from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from jaxtyping import Float
from nibabel.gifti.gifti import GiftiDataArray, GiftiImage, GiftiMetaData
from numpy import ndarray

from glfa_jax.simulate.cortex import Cortex, smooth_field

ANATOMY_SCALE = 20.0  # mm, correlation length of both maps over the cortex
STEEP = 0.5  # weight of slopes beside values
# Mean and standard deviation in the files: curvature in 1/mm, myelin as the ratio of T1w to T2w.
UNITS = {"curvature": (0.0, 0.1), "myelin": (1.3, 0.1)}
SUFFIXES = {"curvature": "curv", "myelin": "myelinw"}  # of the files, as BIDS derivatives have them


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Maps of one subject over the r vertices of the visual region.

    curvature: 1/mm. myelin: ratio of T1w to T2w.
    says: forward, up; what the maps say of the displacement, in no unit.
    """

    curvature: Float[ndarray, " r"]
    myelin: Float[ndarray, " r"]
    says: Float[ndarray, "r 2"]


def draw_anatomy(rng: np.random.Generator, cortex: Cortex) -> Anatomy:
    """Hemispheres are independent of each other, as their displacements are."""
    field = smooth_field(rng, count=4, scale=ANATOMY_SCALE)
    curvature, myelin = cortex.of_each_side(field(cortex.canonical)).T
    slopes = STEEP * ANATOMY_SCALE * cortex.of_each_side(field.slopes(cortex.canonical))
    says = np.stack([curvature + slopes[:, 1, 1], myelin - slopes[:, 0, 0]], axis=1)
    maps = {"curvature": curvature, "myelin": myelin}
    scaled = {key: UNITS[key][0] + UNITS[key][1] * values for key, values in maps.items()}
    return Anatomy(**scaled, says=says)


def write_anatomy(
    folder: Path, anatomy: Anatomy, *, cortex: Cortex, subject: str, space: str
) -> None:
    """One GIFTI file a map and hemisphere; zero outside the visual region."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, suffix in SUFFIXES.items():
        sides = cortex.on_the_mesh(getattr(anatomy, name)[None])
        for side, structure, (values,) in zip(
            "LR", ("CortexLeft", "CortexRight"), sides, strict=True
        ):
            array = GiftiDataArray(
                values, intent="NIFTI_INTENT_SHAPE", datatype="NIFTI_TYPE_FLOAT32"
            )
            about = GiftiMetaData(AnatomicalStructurePrimary=structure)
            image = GiftiImage(darrays=[array], meta=about)
            nibabel.save(
                image, folder / f"sub-{subject}_hemi-{side}_space-{space}_{suffix}.shape.gii"
            )
