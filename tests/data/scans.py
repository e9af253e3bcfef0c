"""Small scanner files with the structure of the real ones."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.cifti2 import BrainModelAxis, Cifti2Image, SeriesAxis

from glfa_jax.data import DataError

# Vertices of each mesh, and those that are no medial wall.
MESH = (40, 44)
KEPT = (np.r_[0:9, 13:40], np.r_[0:20, 24:44])
LEFT, RIGHT = "CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_CORTEX_RIGHT"


def brain_models(*, between: bool = False) -> BrainModelAxis:
    """Both cortices without their medial walls, and two subcortical structures."""
    left, right = (
        BrainModelAxis.from_surface(kept, size, name)
        for kept, size, name in zip(KEPT, MESH, (LEFT, RIGHT), strict=True)
    )
    voxels = np.zeros((4, 4, 4), bool)
    voxels[1:3, 1:3, 1:3] = True
    stem = BrainModelAxis.from_mask(voxels, "CIFTI_STRUCTURE_BRAIN_STEM", affine=2 * np.eye(4))
    other = BrainModelAxis.from_mask(
        voxels, "CIFTI_STRUCTURE_CEREBELLUM_LEFT", affine=2 * np.eye(4)
    )
    return right + stem + left + other if between else left + right + stem + other


def write_cifti(
    path: Path,
    volumes: int,
    *,
    step: float = 2.0,
    seed: int = 0,
    between: bool = False,
    time_first: bool = True,
    unit: str = "SECOND",
) -> np.ndarray:
    """Writes a dense series; gives it as it should be read: both full meshes, NaN where no data."""
    path.parent.mkdir(parents=True, exist_ok=True)
    models = brain_models(between=between)
    values = np.random.default_rng(seed).normal(1000, 10, (volumes, len(models)))
    values = values.astype(np.float32)
    axes = [SeriesAxis(0, step, volumes, unit), models]
    image = Cifti2Image(values if time_first else values.T, axes if time_first else axes[::-1])
    nibabel.save(image, path)
    expected = np.full((volumes, sum(MESH)), np.nan, np.float32)
    for column, (name, vertex) in enumerate(zip(models.name, models.vertex, strict=True)):
        if name in (LEFT, RIGHT):
            expected[:, vertex + (MESH[0] if name == RIGHT else 0)] = values[:, column]
    return expected


def write_nifti(path: Path, values: np.ndarray, *, affine: np.ndarray, step: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values.astype(np.float32), affine)
    zooms = image.header.get_zooms()
    image.header.set_zooms((*zooms[:3], step, *zooms[4:]))
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, path)


def truncate(path: Path, part: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])


def ends_in_a_sentence(path: Path, task: Callable[[], Any]) -> None:
    """Reading a damaged file may do, or is rejected with its name and no more than a line."""
    said = f"{path}: "
    try:
        task()
    except DataError as error:
        said = str(error)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said


def mutations(whole: bytes, *, head: int, count: int = 150) -> Iterator[bytes]:
    """The file with a few bytes changed, most of them in its head, cut off or repeated."""
    rng = np.random.default_rng(0)
    for number in range(count):
        changed = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            end = min(head, len(whole)) if number % 3 else len(whole)
            changed[rng.integers(end)] = rng.choice([0, 1, 127, 128, 255, rng.integers(256)])
        if number % 7 == 0:
            del changed[rng.integers(len(changed)) :]
        yield bytes(changed)
