"""GIFTI files opened with the errors that users make named."""

import zlib
from pathlib import Path
from typing import Literal
from xml.parsers.expat import ExpatError

from nibabel.cifti2.cifti2 import Cifti2HeaderError
from nibabel.filebasedimages import ImageFileError
from nibabel.gifti.gifti import GiftiImage
from nibabel.spatialimages import HeaderDataError

from glfa_jax.data import DataError

Side = Literal["left", "right"]
SIDES: tuple[Side, Side] = ("left", "right")

# What a damaged GIFTI, CIFTI or .npz raises depends on where it ends: header, XML, base64, gzip,
# array shape.
DAMAGED = (
    *(Cifti2HeaderError, HeaderDataError),
    *(ExpatError, zlib.error, ImageFileError, ValueError, OSError, EOFError, IndexError),
    *(AttributeError, KeyError, TypeError),
)


def open_gifti(path: Path, *, side: Side) -> GiftiImage:
    """The image of one hemisphere; raises DataError where the file states the other one."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        image = GiftiImage.from_filename(path)
        stated = {
            meta["AnatomicalStructurePrimary"]
            for meta in (image.meta, *(array.meta for array in image.darrays))
            if "AnatomicalStructurePrimary" in meta
        }
    except DAMAGED as error:
        raise DataError(f"{path}: truncated or no GIFTI ({' '.join(str(error).split())})") from None
    other = {"left": "CortexRight", "right": "CortexLeft"}[side]
    if stated == {other}:
        raise DataError(
            f"{path}: states {other}, but is given for the {side} hemisphere; left comes first"
        )
    return image
