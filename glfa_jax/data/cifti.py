"""CIFTI files: which rows of theirs belong to which vertices of the two cortices."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from nibabel.arrayproxy import reshape_dataobj
from nibabel.cifti2.cifti2 import Cifti2Header
from nibabel.cifti2.cifti2_axes import Axis, BrainModelAxis, SeriesAxis
from nibabel.cifti2.parse_cifti2 import Cifti2Extension
from nibabel.filebasedimages import ImageFileError
from numpy import ndarray

from glfa_jax.data import DataError
from glfa_jax.data.claims import check_size
from glfa_jax.data.gifti import SIDES, Side
from glfa_jax.data.nifti import check_end, open_nifti


@dataclass(frozen=True, eq=False)
class Cortex:
    """One hemisphere in a file. nvertices: of its whole mesh; rows of the file hold `vertices`."""

    nvertices: int
    rows: Int[ndarray, " n"]
    vertices: Int[ndarray, " n"]


@dataclass(frozen=True, eq=False)
class Image:
    """values: what numpy makes an array of, whole or in parts."""

    header: Cifti2Header
    values: Any

    @property
    def shape(self) -> tuple[int, int]:
        return self.values.shape


@contextmanager
def open_cifti(path: Path) -> Iterator[Image]:
    """Not by nibabel's own image, which makes room at once for all that brain models claim."""
    with open_nifti(path, kind="CIFTI") as nifti:
        headers = [e for e in nifti.header.extensions if isinstance(e, Cifti2Extension)]
        shape = nifti.shape[4:]
        if not headers or len(shape) != 2 or nifti.shape[:4] != (1, 1, 1, 1):
            raise ImageFileError("it does not say what its rows and columns are")
        yield Image(headers[0].get_content(), reshape_dataobj(nifti.dataobj, shape))


def axis_beside_models(path: Path, image: Image, kind: type[Axis], *, name: str) -> tuple[int, Any]:
    """Place and content of the axis that is not the one of brain models; raises DataError."""
    for place in (0, 1):
        _check_models(path, image, place)
    axes = [image.header.get_axis(place) for place in (0, 1)]
    kinds = [type(axis) for axis in axes]
    if sorted(kinds, key=str) != sorted([kind, BrainModelAxis], key=str):
        held = " and ".join(each.__name__.removesuffix("Axis") for each in kinds)
        raise DataError(f"{path}: must hold {name} of dense brain models, holds {held}")
    place = kinds.index(kind)
    if (described := tuple(map(len, axes))) != image.shape:
        raise DataError(f"{path}: holds {image.shape} values, its header describes {described}")
    return place, axes[place]


def _check_models(path: Path, image: Image, axis: int) -> None:
    """Rejects brain models that overlap, leave rows out or go on behind the last one."""
    mapping, end = image.header.get_index_map(axis), 0
    if mapping.indices_map_to_data_type != "CIFTI_INDEX_TYPE_BRAIN_MODELS":
        return
    for start, count in sorted((m.index_offset, m.index_count) for m in mapping.brain_models):
        if start != end or count < 1:
            break
        end += count
    if end != image.shape[axis]:
        raise DataError(
            f"{path}: holds {image.shape} values, its brain models do not describe each once"
        )


def cortex_of(path: Path, image: Image, axis: int, side: Side) -> Cortex:
    """The rows of a hemisphere on the axis of brain models; raises DataError."""
    structure = f"CIFTI_STRUCTURE_CORTEX_{side.upper()}"
    # Not by nibabel's axis: it takes the models to be listed in the order in which they lie.
    models = image.header.get_index_map(axis).brain_models
    model = next((each for each in models if each.brain_structure == structure), None)
    if model is None or not model.surface_number_of_vertices:
        raise DataError(f"{path}: has no {structure}")
    count, vertices = model.surface_number_of_vertices, np.asarray(list(model.vertex_indices))
    rows = model.index_offset + np.arange(model.index_count)
    known = np.unique(vertices)
    if not (len(known) == len(vertices) == len(rows) and 0 <= known[0] <= known[-1] < count):
        raise DataError(
            f"{path}: {structure} must name {len(rows)} different vertices of its {count}, one for "
            "each row"
        )
    return Cortex(count, rows, vertices)


@dataclass(frozen=True, eq=False)
class Series:
    """A dense time series.

    rows: places of cortex in the file, ascending; vertices: where each goes in both meshes.
    """

    image: Image
    time_first: bool
    volumes: int
    seconds: float
    sides: tuple[int, ...]
    rows: Int[ndarray, " n"]
    vertices: Int[ndarray, " n"]

    def read(self, time: slice, part: slice) -> Float[ndarray, "time n"]:
        """Some volumes of some of the rows."""
        # Rows ascend, so that those of a part lie close together: all between them are read.
        rows, values = self.rows[part], self.image.values
        between, picked = slice(rows[0], rows[-1] + 1), rows - rows[0]
        if self.time_first:
            return np.asarray(values[:, between])[time][:, picked]
        return np.asarray(values[between, time]).T[:, picked]

    def check_end(self) -> None:
        check_end(self.image.values)


@contextmanager
def open_series(path: Path) -> Iterator[Series]:
    with open_cifti(path) as image:
        time, series = axis_beside_models(path, image, SeriesAxis, name="a series")
        if str(series.unit).upper() != "SECOND":
            raise DataError(f"{path}: its series counts in {series.unit}, must be SECOND")
        sides = [cortex_of(path, image, 1 - time, side) for side in SIDES]
        check_size(path, volumes=len(series), values=sum(side.nvertices for side in sides))
        rows = np.concatenate([side.rows for side in sides])
        vertices = np.concatenate([sides[0].vertices, sides[0].nvertices + sides[1].vertices])
        order = np.argsort(rows)
        yield Series(
            image=image,
            time_first=time == 0,
            volumes=len(series),
            seconds=float(series.step),
            sides=tuple(side.nvertices for side in sides),
            rows=rows[order],
            vertices=vertices[order],
        )
