"""A small cortex of two unlike flat sheets, written as the files that users have."""

from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from nibabel.cifti2.cifti2_axes import BrainModelAxis, LabelAxis
from nibabel.gifti.gifti import (
    GiftiDataArray,
    GiftiImage,
    GiftiLabel,
    GiftiLabelTable,
    GiftiMetaData,
)
from nibabel.nifti1 import intent_codes
from scipy.spatial import Delaunay

STRUCTURES = {"left": "CortexLeft", "right": "CortexRight"}


@dataclass(frozen=True)
class Sheet:
    """flat, pial, white: (v, 3) mm; cut: vertices that no triangle of the flat surface holds."""

    side: str
    flat: np.ndarray
    faces: np.ndarray
    pial: np.ndarray
    white: np.ndarray
    cut: np.ndarray


def sheet(side: str) -> Sheet:
    """Left: an ellipse with a round hole. Right: a rectangle with a notch, more vertices.

    Vertices are in random order; 80 lie nowhere on the flat surface, as the medial wall does.
    """
    rng = np.random.default_rng(["left", "right"].index(side))
    alone = 80
    grid = np.stack(np.meshgrid(np.arange(-59, 60, 2.0), np.arange(-39, 40, 2.0)), -1)
    places = grid.reshape(-1, 2) + rng.uniform(-0.6, 0.6, (grid.size // 2, 2))

    def inside(p: np.ndarray) -> np.ndarray:
        x, y = p.T
        if side == "left":
            return ((x / 60) ** 2 + (y / 40) ** 2 < 1) & (np.hypot(x - 10, y - 8) > 9)
        return ~((x > 20) & (np.abs(y) < 10))

    places = places[inside(places)]
    count = len(places)
    faces = Delaunay(places).simplices
    corners = places[faces]
    faces = faces[inside(corners.mean(axis=1))]
    first, second = np.moveaxis(np.diff(places[faces], axis=1), 1, 0)
    turned = first[:, 0] * second[:, 1] < first[:, 1] * second[:, 0]
    faces[turned] = faces[turned][:, ::-1]

    order = rng.permutation(count + alone)
    flat = np.zeros((count + alone, 3))
    flat[order[:count], :2] = places
    pial = np.stack([flat[:, 0] * 0.8, flat[:, 1], 5 * np.sin(flat[:, 0] / 15)], axis=1)
    pial[:, 0] += -70 if side == "left" else 70
    return Sheet(side, flat, order[faces], pial, pial * 0.95, np.sort(order[count:]))


def write_surface(path: Path, points: np.ndarray, faces: np.ndarray, side: str | None) -> Path:
    meta = {"AnatomicalStructurePrimary": STRUCTURES[side]} if side else {}
    arrays = [
        GiftiDataArray(points.astype(np.float32), "NIFTI_INTENT_POINTSET", meta=meta),
        GiftiDataArray(faces.astype(np.int32), "NIFTI_INTENT_TRIANGLE"),
    ]
    nibabel.save(GiftiImage(darrays=arrays), path)
    return path


def write_labels(path: Path, keys: np.ndarray, table: dict[int, str], side: str | None) -> Path:
    labels = GiftiLabelTable()
    for key, name in table.items():
        label = GiftiLabel(key, 1, 1, 1, 1)
        label.label = name
        labels.labels.append(label)
    meta = {"AnatomicalStructurePrimary": STRUCTURES[side]} if side else {}
    array = GiftiDataArray(keys.astype(np.int32), intent_codes["NIFTI_INTENT_LABEL"])
    nibabel.save(GiftiImage(meta=GiftiMetaData(meta), labeltable=labels, darrays=[array]), path)
    return path


def write_dlabel(
    path: Path, keys: dict[str, np.ndarray], table: dict[int, str], cut: dict[str, np.ndarray]
) -> Path:
    """A label CIFTI whose brain models leave out the `cut` vertices; a subcortex comes between."""
    models, values = [], []
    for side in ("left", "right"):
        kept = np.ones(len(keys[side]), bool)
        kept[cut[side]] = False
        models.append(BrainModelAxis.from_mask(kept, name=f"CORTEX_{side.upper()}"))
        values.append(keys[side][kept])
    deep = BrainModelAxis.from_mask(
        np.ones((2, 2, 1), bool), affine=np.eye(4), name="THALAMUS_LEFT"
    )
    axis = models[0] + deep + models[1]
    data = np.concatenate([values[0], np.zeros(4), values[1]])[None]
    labels = LabelAxis(["parcels"], [{key: (name, (1, 1, 1, 1)) for key, name in table.items()}])
    image = nibabel.Cifti2Image(data.astype(np.float32), (labels, axis))
    image.update_headers()
    nibabel.save(image, path)
    return path
