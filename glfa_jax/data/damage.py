"""Damaged files: whatever their readers raise becomes one sentence."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.parsers.expat import ExpatError
from zipfile import BadZipFile

from nibabel.cifti2.cifti2 import Cifti2HeaderError
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from glfa_jax.data import DataError

# What is raised depends on where a file ends: header, XML, base64, zlib, archive, array shape.
DAMAGED = (
    *(Cifti2HeaderError, HeaderDataError, ImageFileError, WrapStructError),
    *(ExpatError, zlib.error, BadZipFile, OSError, EOFError),
    *(ValueError, TypeError, KeyError, IndexError, AttributeError),
)


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Says of a file that it is not there, or that it is truncated or not of this kind."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        yield
    except DataError:
        raise
    except DAMAGED as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: truncated or no {kind} ({reason:.200})") from None
