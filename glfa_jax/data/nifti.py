"""NIfTI files, opened by what they hold, not by their names."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Image
from nibabel.nifti2 import Nifti2Image

from glfa_jax.data import DataError, reading
from glfa_jax.data.claims import most_bytes, unpacked

MOST_OBLIQUE = 1e4  # condition of an affine; voxels a thousand times as long as wide stay below it
VERSIONS = {348: Nifti1Image, 540: Nifti2Image}  # by the size of the header, the first number


@contextmanager
def open_nifti(path: Path, *, kind: str = "NIfTI") -> Iterator[Any]:
    """An image of numbers; what goes wrong in the block is the fault of the file, no `kind`."""
    with reading(path, kind), unpacked(path) as file:
        first = file.read(4)
        file.seek(0)
        sizes = [int.from_bytes(first, order) for order in ("little", "big")]
        version = next((VERSIONS[size] for size in sizes if size in VERSIONS), None)
        if version is None:
            raise ImageFileError("its first bytes are of another kind of file")
        # Mapped into memory, a file that gets shorter meanwhile would end the process.
        image = version.from_file_map(version.make_file_map({"image": file}), mmap=False)
        if image.dataobj.offset < min(VERSIONS):
            raise ImageFileError("its values begin within its header")
        if (dtype := image.dataobj.dtype).kind not in "iuf":
            raise DataError(f"{path}: must hold plain numbers, holds {dtype}")
        if (held := most_bytes(path, file)) < (wanted := _end(image.dataobj)):
            raise ImageFileError(f"{held} bytes, must be {wanted}")
        yield image


def _end(values: Any) -> int:
    """Where an image's values end in the file."""
    return values.offset + values.dtype.itemsize * math.prod(values.shape)


def check_end(values: Any) -> None:
    """Raises where a file packed with gzip, all of it read now, does not fit its checksum."""
    values.file_like.seek(_end(values))
    values.file_like.read(2**20)  # the sum lies behind the values


def check_place(path: Path, image: Nifti1Image) -> None:
    """Rejects a volume of which nobody can say where in the head it lies."""
    header: Any = image.header
    if not (header["sform_code"] > 0 or header["qform_code"] > 0):
        raise DataError(
            f"{path}: does not say where it lies (sform_code and qform_code are 0); the affine "
            "must lead to the space of the surfaces"
        )
    affine = image.affine
    if (
        affine is None
        or not np.isfinite(affine).all()
        or not np.linalg.cond(affine[:3, :3]) < MOST_OBLIQUE
    ):
        raise DataError(f"{path}: its affine (sform or qform) puts all voxels in one plane")
