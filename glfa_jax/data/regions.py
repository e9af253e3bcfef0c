"""Which vertices are drawn: areas of a parcellation by name, or an image of the flat map."""

import re
from collections.abc import Sequence
from pathlib import Path
from zipfile import is_zipfile

import numpy as np
from jaxtyping import Bool, Float, Int8, Shaped
from nibabel.cifti2.cifti2_axes import LabelAxis
from numpy import ndarray

from glfa_jax.data import DataError, reading
from glfa_jax.data.cifti import Cortex, axis_beside_models, cortex_of, open_cifti
from glfa_jax.data.gifti import SIDES, Side, open_gifti
from glfa_jax.data.plane import side_by_side
from glfa_jax.files import read_arrays

UNLABELLED = "???"  # what parcellations call the cortex that belongs to no area


def areas(
    files: Sequence[Path], *, names: Sequence[str], sides: tuple[int, int]
) -> Bool[ndarray, " vertices"]:
    """Vertices of the named areas in both hemispheres, left then right.

    files: two label GIFTIs, left first, or one label CIFTI; of several maps the first is taken.
    names: an area stands for both hemispheres, so V1, V1_ROI, L_V1 and R_V1_ROI mean the same.
    sides: vertices of the left and of the right mesh.
    """
    named = np.split(names_of(files, sides=sides), [sides[0]])
    held = [set(np.unique(part)) - {""} for part in named]
    wanted = {_area(name): name for name in names}
    where = " and ".join(map(str, files))
    unknown = [name for area, name in wanted.items() if area not in held[0] | held[1]]
    if unknown:
        raise DataError(
            f"{where}: no area is called {', '.join(unknown)}; "
            f"{len(held[0] | held[1])} areas are known"
        )
    lone = [name for area, name in wanted.items() if area not in held[0] & held[1]]
    if lone:
        raise DataError(f"{where}: only one hemisphere has {', '.join(lone)}; both are needed")
    return np.isin(np.concatenate(named), list(wanted))


def names_of(files: Sequence[Path], *, sides: tuple[int, int]) -> Shaped[ndarray, " vertices"]:
    """The name of the area that every vertex lies in, left then right; empty where in none.

    Arguments as of `areas`; names stand for both hemispheres.
    """
    if len(files) == 1:
        named = _cifti(files[0], sides)
    else:
        named = tuple(
            _gifti(path, side, count) for path, side, count in zip(files, SIDES, sides, strict=True)
        )
    for part, side in zip(named, SIDES, strict=True):
        _check_side(part, side, files)
    given, place = np.unique(np.concatenate(named), return_inverse=True)
    return np.array([_area(name) if name != UNLABELLED else "" for name in given])[place]


def image(path: Path) -> Int8[ndarray, "h w"]:
    """A mask image, .npy or .npz (key `images`), (h, w) or (1, h, w).

    1: the region, -1: other cortex, 0: no cortex. Pickled arrays are rejected.
    """
    kind = ".npy or .npz of plain numbers"
    if is_zipfile(path):
        arrays = read_arrays(path, kind, error=DataError)
        if "images" not in arrays:
            held = ", ".join(arrays) or "nothing"
            raise DataError(f"{path}: must hold the key images, holds {held:.200}")
        image = arrays["images"]
    else:
        with reading(path, kind):
            image = np.load(path, allow_pickle=False)
    if image.ndim == 3 and len(image) == 1:
        image = image[0]
    if image.ndim != 2:
        raise DataError(f"{path}: must be one image (height, width), is {image.shape}")
    if image.dtype.kind not in "biuf" or not np.isin(image, (-1, 0, 1)).all():
        raise DataError(f"{path}: must hold -1 (other cortex), 0 (none) and 1 (region) only")
    if not (image == 1).any():
        raise DataError(f"{path}: has no pixel of the region (1)")
    return image.astype(np.int8)


def from_image(
    mask: Int8[ndarray, "h w"],
    *,
    flats: tuple[Float[ndarray, "l 2"], Float[ndarray, "r 2"]],
    cortex: tuple[Bool[ndarray, " l"], Bool[ndarray, " r"]],
) -> Bool[ndarray, " vertices"]:
    """Vertices whose nearest pixel of a mask image is 1, left then right.

    The image is taken to show the whole cortex as `flatmap` draws it: both flat hemispheres side
    by side, their bounding box filling the image, without a margin.
    cortex: vertices that the flat surface kept.
    """
    plane = side_by_side(flats, shown=cortex, shape=_size(mask), margin=0)
    inside = []
    for points, part in zip(plane.points, cortex, strict=True):
        rows, columns = np.rint(points[part]).astype(int).T
        chosen = np.zeros(len(points), bool)
        chosen[part] = mask[rows, columns] == 1
        inside.append(chosen)
    return np.concatenate(inside)


def _size(mask: ndarray) -> tuple[int, int]:
    height, width = mask.shape
    return height, width


def _area(name: str) -> str:
    """L_V1_ROI, R_V1, V1_ROI -> V1."""
    return re.sub(r"^[LR]_|_ROI$", "", name.strip())


def _check_side(names: ndarray, side: Side, files: Sequence[Path]) -> None:
    other = {"left": "R_", "right": "L_"}[side]
    wrong = next((name for name in np.unique(names) if name.startswith(other)), None)
    if wrong is not None:
        path = files[SIDES.index(side) % len(files)]
        raise DataError(f"{path}: {wrong} lies in the {side} hemisphere; left comes first")


def _gifti(path: Path, side: Side, count: int) -> ndarray:
    """The name of the area that every vertex lies in, empty where it lies in none."""
    image = open_gifti(path, side=side)
    labels = image.get_arrays_from_intent("NIFTI_INTENT_LABEL")
    if not labels:
        raise DataError(f"{path}: no label GIFTI: holds no array of intent LABEL")
    with reading(path, "label GIFTI"):
        keys = np.asarray(labels[0].data).ravel()
        names = _names(keys, {label.key: label.label or "" for label in image.labeltable.labels})
    if len(names) != count:
        raise DataError(
            f"{path}: labels {len(names)} vertices, the {side} surface has {count}; another mesh?"
        )
    return names


def _cifti(path: Path, sides: tuple[int, int]) -> tuple[ndarray, ndarray]:
    with open_cifti(path) as image:
        table, labels = axis_beside_models(path, image, LabelAxis, name="labels")
        keys = np.moveaxis(np.asarray(image.values), table, 0)[0]
        names = _names(keys, {key: label[0] for key, label in labels.label[0].items()})
        left, right = (
            _whole_mesh(path, cortex_of(path, image, 1 - table, side), names, side, count)
            for side, count in zip(SIDES, sides, strict=True)
        )
    return left, right


def _whole_mesh(path: Path, cortex: Cortex, names: ndarray, side: Side, count: int) -> ndarray:
    """The names of one hemisphere's grayordinates on all vertices of its mesh."""
    if cortex.nvertices != count:
        raise DataError(
            f"{path}: labels a mesh of {cortex.nvertices} vertices, the {side} surface has "
            f"{count}; another mesh?"
        )
    whole = np.full(count, "", names.dtype)
    whole[cortex.vertices] = names[cortex.rows]
    return whole


def _names(keys: ndarray, table: dict[int, str]) -> ndarray:
    known, position = np.unique(keys, return_inverse=True)
    return np.array([table.get(int(key), "") for key in known])[position.reshape(keys.shape)]
