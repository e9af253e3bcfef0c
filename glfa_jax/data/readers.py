"""Scanner files to blocks of (time, values), float32, in bounded memory.

Every reader is a generator to be called through `functools.partial`, so that runs can be sent to
other processes. Raises DataError, one sentence, where a file is missing, damaged or of another
kind.
"""

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from nibabel.nifti1 import Nifti1Image
from numpy import ndarray

from glfa_jax.data import DataError, gifti
from glfa_jax.data.cifti import open_series
from glfa_jax.data.claims import check_size
from glfa_jax.data.hdf5 import open_dataset
from glfa_jax.data.layouts import Blocks
from glfa_jax.data.nifti import check_end, check_place, open_nifti
from glfa_jax.data.surfaces import Surfaces

BLOCK_BYTES = 2**26  # what a block of the series may take
SAMPLES = 10  # places between white and pial surface at which a volume is sampled, and averaged
_SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}  # a header without unit states nothing


class Header(NamedTuple):
    """What a scan says of itself: seconds from one volume to the next, 0 where not stated.

    volumes: 0 where only reading the file would tell.
    sides: values of the hemispheres in the file, left first; none where they are sampled.
    """

    volumes: int
    seconds: float
    sides: tuple[int, ...] = ()


def header_of(path: Path) -> Header:
    """Of a scan in any of the formats, by the end of its name."""
    if path.name.endswith((".gii", ".gii.gz")):
        return gifti_header(path)
    if path.name.endswith((".dtseries.nii", ".dtseries.nii.gz")):
        return cifti_header(path)
    return volume_header(path)


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
    sides = [
        gifti.read_series(path, side=side)
        for path, side in zip((left, right), gifti.SIDES, strict=True)
    ]
    if len(sides[0]) != len(sides[1]):
        raise DataError(
            f"{left.parent}: hemispheres of different length, {len(sides[0])} volumes in "
            f"{left.name} and {len(sides[1])} in {right.name}"
        )
    step = _step(4 * (sides[0].shape[1] + sides[1].shape[1]))
    for start in range(0, len(sides[0]), step):
        yield np.concatenate([side[start : start + step] for side in sides], axis=1)


def gifti_header(path: Path) -> Header:
    vertices, seconds = gifti.read_head(path)
    return Header(0, seconds, (vertices,))


def cifti(path: Path) -> Blocks:
    """Dense time series: (time, vertices of the full left, then of the full right mesh).

    Vertices that the file leaves out (the medial wall) are NaN; what is no cortex is left out.
    """
    with open_series(path) as series:
        values = sum(series.sides)
        step = _step(4 * values)
        # A file holds one time course after the other: they are read in groups, as long as a block.
        group = max(BLOCK_BYTES // (4 * series.volumes), 1)
        for start in range(0, series.volumes, step):
            block = np.full((min(step, series.volumes - start), values), np.nan, np.float32)
            time = slice(start, start + len(block))
            for first in range(0, len(series.rows), group):
                part = slice(first, first + group)
                block[:, series.vertices[part]] = series.read(time, part)
            if time.stop == series.volumes:
                series.check_end()
            yield block


def cifti_header(path: Path) -> Header:
    with open_series(path) as series:
        return Header(series.volumes, series.seconds, series.sides)


def volume(path: Path, surfaces: Surfaces) -> Blocks:
    """4-D NIfTI in the space of the surfaces: (time, vertices of left, then right).

    At each vertex the mean of the signal along the way from the white to the pial surface (linear
    interpolation); NaN where all of it lies outside the image.
    """
    from nilearn.surface import vol_to_surf  # takes a second to import

    sides = [(_mesh(s.white, s.faces), _mesh(s.pial, s.faces)) for s in _both(surfaces)]
    with open_nifti(path) as image:
        *box, volumes = _shape(path, image)
        check_place(path, image)
        step = _step(4 * max(math.prod(box), surfaces.num_vertices))
        for start in range(0, volumes, step):
            data = np.asarray(image.dataobj[:, :, :, start : start + step], np.float32)
            if start + step >= volumes:
                check_end(image.dataobj)
            part = Nifti1Image(data.reshape(*box, -1), image.affine)
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


def volume_header(path: Path) -> Header:
    with open_nifti(path) as image:
        volumes = _shape(path, image)[3]
        check_place(path, image)
        _, unit = image.header.get_xyzt_units()
        return Header(volumes, float(image.header.get_zooms()[3]) * _SECONDS.get(unit, 0.0))


def _shape(path: Path, image: Any) -> tuple[int, int, int, int]:
    """Of a series of volumes; axes of one value behind them count for nothing."""
    shape = image.shape
    if len(shape) < 4 or max(shape[4:], default=1) > 1:
        raise DataError(f"{path}: must be a series of volumes, has shape {shape}")
    check_size(path, volumes=shape[3], values=math.prod(shape[:3]))
    return shape[:4]


def hdf5(path: Path, key: str) -> Blocks:
    """A data set (time, ...), flattened to (time, values): a few volumes at a time."""
    with open_dataset(path, key) as data:
        values = math.prod(data.shape[1:])
        step = _step(4 * values)
        if data.chunks is not None and data.chunks[0] <= 4 * step:
            # No chunk is unpacked twice; blocks may grow a little for it.
            step = max(step - step % data.chunks[0], data.chunks[0])
        for start in range(0, len(data), step):
            yield data[start : start + step].astype(np.float32, copy=False).reshape(-1, values)


def hdf5_shape(path: Path, key: str) -> tuple[int, ...]:
    """The shape of a data set of numbers, which may be far larger than memory."""
    with open_dataset(path, key) as data:
        return data.shape


def _step(volume_bytes: int) -> int:
    return max(BLOCK_BYTES // max(volume_bytes, 1), 1)
