"""NIfTI files, and CIFTI files, which lie in them: opened by what they hold, not by their names."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.cifti2.cifti2 import Cifti2Image
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Image
from nibabel.nifti2 import Nifti2Image

from glfa_jax.data import DataError
from glfa_jax.data.claims import check_sum, most_bytes, unpacked
from glfa_jax.data.damage import reading

MOST_OBLIQUE = 1e4  # condition of an affine; voxels a thousand times as long as wide stay below it
_VERSIONS = {348: Nifti1Image, 540: Nifti2Image}  # by the size of the header, the first number


@contextmanager
def open_nifti(path: Path) -> Iterator[Any]:
    """An image of numbers in version 1 or 2; what goes wrong in the block is the file's fault."""
    with _opened(path, "NIfTI", _VERSIONS) as image:
        yield image


@contextmanager
def open_cifti(path: Path) -> Iterator[Cifti2Image]:
    """The same of a CIFTI-2 image."""
    with _opened(path, "CIFTI", {540: Cifti2Image}) as image:
        yield image


@contextmanager
def _opened(path: Path, kind: str, versions: Mapping[int, Any]) -> Iterator[Any]:
    with reading(path, kind), unpacked(path) as file:
        first = file.read(4)
        file.seek(0)
        sizes = [int.from_bytes(first, order) for order in ("little", "big")]
        version = next((versions[size] for size in sizes if size in versions), None)
        if version is None:
            raise ImageFileError("its first bytes are of another kind of file")
        # Mapped into memory, a file that gets shorter meanwhile would end the process.
        image = version.from_file_map(version.make_file_map({"image": file}), mmap=False)
        header = image.nifti_header if isinstance(image, Cifti2Image) else image.header
        if header["magic"] != header.single_magic or image.dataobj.offset < header.sizeof_hdr:
            raise ImageFileError("its values lie in another file")
        if (dtype := image.dataobj.dtype).kind not in "iuf":
            raise DataError(f"{path}: must hold plain numbers, holds {dtype}")
        if (held := most_bytes(path, file)) < (wanted := _end(image)):
            raise ImageFileError(f"{held} bytes, must be {wanted}")
        yield image


def _end(image: Any) -> int:
    """Where the values end in the file."""
    proxy = image.dataobj
    return proxy.offset + proxy.dtype.itemsize * math.prod(proxy.shape)


def check_end(image: Any) -> None:
    """Raises where a file packed with gzip, all of it read now, does not fit its checksum."""
    check_sum(image.dataobj.file_like, end=_end(image))


def check_place(path: Path, image: Nifti1Image) -> None:
    """Refuses a volume of which nobody can say where in the head it lies."""
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
