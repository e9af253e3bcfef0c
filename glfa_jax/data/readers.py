"""Scanner files to blocks of (time, values), float32, in bounded memory.

Every reader is a generator to be called through `functools.partial`, so that runs can be sent to
other processes. Raises DataError, one sentence, where a file is missing, damaged or of another
kind.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from nibabel.cifti2.cifti2 import Cifti2Image
from nibabel.cifti2.cifti2_axes import BrainModelAxis, SeriesAxis
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Image
from nibabel.nifti2 import Nifti2Image
from numpy import ndarray

from glfa_jax.data import DataError
from glfa_jax.data.damage import reading
from glfa_jax.data.gifti import SIDES, Side, open_gifti
from glfa_jax.data.layouts import Blocks
from glfa_jax.data.surfaces import Surfaces

BLOCK_BYTES = 2**26  # what a block of the series may take
CORTEX = ("CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_CORTEX_RIGHT")
SAMPLES = 10  # places between white and pial surface at which a volume is sampled, and averaged
# How far a header may be from the sidecar, seconds: some programs keep TR in few digits.
TIME_TOLERANCE = 1e-3
_SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}  # a header without unit states nothing


def trimmed(read: Callable[[], Blocks], path: Path, begin: int, end: int) -> Blocks:
    """The blocks of `read` without the first `begin` and the last `end` volumes."""
    seen, held, given = 0, [], False
    for block in read():
        held.append(block[max(begin - seen, 0) :])
        seen += len(block)
        # Whole blocks go out as soon as the last `end` volumes are surely behind them.
        while held and sum(map(len, held[1:])) >= end:
            first = held.pop(0)
            if len(first):
                given = True
                yield first
    rest = np.concatenate(held) if held else np.empty((0, 0), np.float32)
    rest = rest[: max(len(rest) - end, 0)]
    if len(rest):
        yield rest
    elif not given:
        raise DataError(f"{path}: {seen} volumes, and {begin} + {end} of them are to be dropped")


def gifti_pair(left: Path, right: Path) -> Blocks:
    """Functional GIFTI, one file a hemisphere: (time, vertices of left, then right)."""
    sides = [_gifti(path, side) for path, side in zip((left, right), SIDES, strict=True)]
    if len(sides[0]) != len(sides[1]):
        raise DataError(
            f"{left.parent}: hemispheres of different length, {len(sides[0])} volumes in "
            f"{left.name} and {len(sides[1])} in {right.name}"
        )
    step = _step(4 * (sides[0].shape[1] + sides[1].shape[1]))
    for start in range(0, len(sides[0]), step):
        yield np.concatenate([side[start : start + step] for side in sides], axis=1)


def _gifti(path: Path, side: Side) -> Float[ndarray, "time v"]:
    image = open_gifti(path, side=side)
    with reading(path, "GIFTI"):
        arrays = [np.asarray(array.data, np.float32) for array in image.darrays]
        series = arrays[0].T if len(arrays) == 1 and arrays[0].ndim == 2 else np.stack(arrays)
    if series.ndim != 2:
        raise DataError(f"{path}: must hold one value per vertex and volume, holds {series.shape}")
    return series


def cifti(path: Path) -> Blocks:
    """Dense time series: (time, vertices of the full left, then of the full right mesh).

    Vertices that the file leaves out (the medial wall) are NaN; what is no cortex is left out.
    """
    series = _Cifti.open(path)
    values = sum(series.nvertices)
    step = _step(4 * values)
    # A file holds one time course after the other: they are read in groups, as long as a block.
    group = max(BLOCK_BYTES // (4 * max(series.volumes, 1)), 1)
    for start in range(0, series.volumes, step):
        block = np.full((min(step, series.volumes - start), values), np.nan, np.float32)
        time = slice(start, start + len(block))
        for first in range(0, len(series.rows), group):
            part = slice(first, first + group)
            with reading(path, "CIFTI"):
                block[:, series.vertices[part]] = series.read(time, series.rows[part])
        yield block


def cifti_header(path: Path) -> tuple[int, float]:
    """Number of volumes and seconds from one to the next of a dense time series."""
    series = _Cifti.open(path)
    return series.volumes, series.seconds


@dataclass(frozen=True, eq=False)
class _Cifti:
    """rows: places of cortex in the file, ascending; vertices: where each goes in both meshes."""

    proxy: Any
    time_first: bool
    volumes: int
    seconds: float
    nvertices: tuple[int, int]
    rows: Int[ndarray, " n"]
    vertices: Int[ndarray, " n"]

    @classmethod
    def open(cls, path: Path) -> "_Cifti":
        with reading(path, "CIFTI"):
            image = Cifti2Image.from_filename(path)
            axes = [image.header.get_axis(i) for i in range(image.ndim)]
            proxy: Any = image.dataobj
            wanted = proxy.offset + proxy.dtype.itemsize * math.prod(proxy.shape)
            if path.stat().st_size < wanted:  # what is lost may be no cortex: reading would do
                raise ImageFileError(f"{path.stat().st_size} bytes, must be {wanted}")
        kinds = [type(axis) for axis in axes]
        if sorted(kinds, key=str) != sorted([SeriesAxis, BrainModelAxis], key=str):
            held = " and ".join(kind.__name__.removesuffix("Axis") for kind in kinds)
            raise DataError(f"{path}: must hold a series of dense brain models, holds {held}")
        time_first = kinds[0] is SeriesAxis
        series, brain = axes if time_first else axes[::-1]
        if str(series.unit).upper() != "SECOND":
            raise DataError(f"{path}: its series counts in {series.unit}, must be SECOND")
        missing = [name for name in CORTEX if name not in brain.nvertices]
        if missing:
            raise DataError(f"{path}: has no {' and no '.join(missing)}")
        rows, vertices, offset = [], [], 0
        for name in CORTEX:
            rows.append(np.flatnonzero(brain.name == name))
            vertices.append(offset + brain.vertex[rows[-1]])
            offset += brain.nvertices[name]
        order = np.argsort(np.concatenate(rows))
        return cls(
            proxy=proxy,
            time_first=time_first,
            volumes=len(series),
            seconds=float(series.step),
            nvertices=tuple(brain.nvertices[name] for name in CORTEX),
            rows=np.concatenate(rows)[order],
            vertices=np.concatenate(vertices)[order],
        )

    def read(self, time: slice, rows: Int[ndarray, " n"]) -> Float[ndarray, "time n"]:
        # Rows ascend, so that those of a group lie close together: all between them are read.
        between, picked = slice(rows[0], rows[-1] + 1), rows - rows[0]
        if self.time_first:
            return np.asarray(self.proxy[:, between])[time][:, picked]
        return np.asarray(self.proxy[between, time]).T[:, picked]


def volume(path: Path, surfaces: Surfaces) -> Blocks:
    """4-D NIfTI in the space of the surfaces: (time, vertices of left, then right).

    At each vertex the mean of the signal along the way from the white to the pial surface (linear
    interpolation); NaN where all of it lies outside the image.
    """
    from nilearn.surface import vol_to_surf  # takes a second to import

    image = _nifti(path)
    sides = [(_mesh(s.white, s.faces), _mesh(s.pial, s.faces)) for s in _both(surfaces)]
    volumes = image.shape[3]
    step = _step(4 * max(math.prod(image.shape[:3]), surfaces.num_vertices))
    for start in range(0, volumes, step):
        with reading(path, "NIfTI"):
            data = np.asarray(image.dataobj[..., start : start + step], np.float32)
        part = Nifti1Image(data, image.affine)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
            drawn = [
                vol_to_surf(part, pial, inner_mesh=white, n_samples=SAMPLES, kind="depth")
                for white, pial in sides
            ]
        yield np.concatenate([values.T for values in drawn], axis=1).astype(np.float32)


def _both(surfaces: Surfaces) -> tuple[Any, Any]:
    sides = (surfaces.left, surfaces.right)
    for name in ("white", "pial"):
        if any(getattr(side, name, None) is None for side in sides):
            raise DataError(f"data.surfaces.{name}: is needed to sample volumes to the surface")
    return sides


def _mesh(points: ndarray, faces: ndarray) -> list[ndarray]:
    return [np.asarray(points, np.float64), np.asarray(faces)]


def volume_header(path: Path) -> tuple[int, float]:
    """Number of volumes and seconds from one to the next (0 where not stated) of a 4-D NIfTI."""
    image = _nifti(path)
    with reading(path, "NIfTI"):
        header: Any = image.header
        _, unit = header.get_xyzt_units()
        seconds = float(header.get_zooms()[3]) * _SECONDS.get(unit, 0.0)
    return image.shape[3], seconds


def _nifti(path: Path) -> Nifti1Image:
    with reading(path, "NIfTI"):
        # An open file is read onwards; a compressed one would be unpacked anew for every block.
        try:
            image = Nifti1Image.from_filename(path, keep_file_open=True)
        except ImageFileError:
            image = Nifti2Image.from_filename(path, keep_file_open=True)
    if len(image.shape) != 4:
        raise DataError(f"{path}: must be a series of volumes, has shape {image.shape}")
    return image


def hdf5(path: Path, key: str) -> Blocks:
    """A data set (time, ...), flattened to (time, values): a few volumes at a time."""
    import h5py

    shape = hdf5_shape(path, key)
    values = math.prod(shape[1:])
    step = _step(4 * values)
    with reading(path, "HDF5"), h5py.File(path, "r") as file:
        data: Any = file[key]
        if data.chunks is not None and data.chunks[0] <= 4 * step:
            # No chunk is unpacked twice; blocks may grow a little for it.
            step = max(step - step % data.chunks[0], data.chunks[0])
        for start in range(0, shape[0], step):
            yield data[start : start + step].astype(np.float32, copy=False).reshape(-1, values)


def hdf5_shape(path: Path, key: str) -> tuple[int, ...]:
    """The shape of a data set of numbers, which may be far larger than memory."""
    import h5py

    with reading(path, "HDF5"), h5py.File(path, "r") as file:
        data = file.get(key)
        if not isinstance(data, h5py.Dataset):
            held = ", ".join(file) or "nothing"
            raise DataError(f"{path}: has no data set {key!r}, holds {held:.200}")
        if data.ndim < 2 or data.dtype.kind not in "fiu":
            raise DataError(
                f"{path}: {key!r} must hold numbers (time, ...), holds {data.dtype} {data.shape}"
            )
        return data.shape


def check_step(path: Path, seconds: float, *, repetition_time: float) -> None:
    """Refuses a file whose header states another repetition time; 0 states none."""
    if seconds > 0 and abs(seconds - repetition_time) > TIME_TOLERANCE:
        raise DataError(
            f"{path}: wrong TR, its header says {seconds:g} s and its sidecar {repetition_time:g} s"
        )


def _step(volume_bytes: int) -> int:
    return max(BLOCK_BYTES // max(volume_bytes, 1), 1)
