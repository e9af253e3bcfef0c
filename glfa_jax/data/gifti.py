"""GIFTI files opened with the errors that users make named, and written."""

import base64
import math
import warnings
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from nibabel.gifti.gifti import GiftiDataArray, GiftiImage, GiftiMetaData
from nibabel.gifti.parse_gifti_fast import GiftiImageParser, GiftiParseError
from nibabel.gifti.util import array_index_order_codes, gifti_encoding_codes, gifti_endian_codes
from nibabel.nifti1 import data_type_codes, intent_codes
from numpy import ndarray

from glfa_jax.data import DataError, reading
from glfa_jax.data.claims import check_size, unpacked
from glfa_jax.files import write_atomically

Side = Literal["left", "right"]
SIDES: tuple[Side, Side] = ("left", "right")
ROOM, GROWTH = 2**27, 20  # a file's text and values may take so many bytes, and so many a byte
PACKED, ELSEWHERE = (
    gifti_encoding_codes.code[name] for name in ("GZipBase64Binary", "ExternalFileBinary")
)
# Arrays that may lie beside the measurements.
NO_SIGNAL = [
    intent_codes.code[f"NIFTI_INTENT_{name}"]
    for name in ("POINTSET", "TRIANGLE", "NODE_INDEX", "LABEL", "RGB_VECTOR", "RGBA_VECTOR")
]


def open_gifti(path: Path, *, side: Side) -> GiftiImage:
    """The image of one hemisphere; raises DataError where it is the other one."""
    with reading(path, "GIFTI"):
        most = ROOM + GROWTH * path.stat().st_size
        with unpacked(path) as file:
            text = file.read(most + 1)
        if len(text) > most:
            raise OSError(f"unpacks to more than {most:,} bytes")
        parser = _Parser(path, most=most)
        with warnings.catch_warnings():
            # What nibabel only warns of: arrays, volumes perhaps, that are announced and not there.
            warnings.filterwarnings("error", "Actual # of data arrays", UserWarning)
            parser.parse(string=text)
        image: Any = parser.img
        stated = [
            meta.get("AnatomicalStructurePrimary", "")
            for meta in (image.meta, *(array.meta for array in image.darrays))
        ]
    named = [each for each in SIDES if any(each in name.lower() for name in stated)]
    if named and side not in named:
        other = f"Cortex{named[0].title()}"
        raise DataError(f"{path}: holds {other}, must hold the {side} hemisphere; left comes first")
    return image


def read_series(path: Path, *, side: Side) -> Float[ndarray, "time v"]:
    """The measurements in a file, whatever surface lies beside them."""
    image = open_gifti(path, side=side)
    with reading(path, "GIFTI"):
        for index in image.get_arrays_from_intent("NIFTI_INTENT_NODE_INDEX"):
            if not np.array_equal(index.data, np.arange(len(index.data))):
                raise DataError(f"{path}: holds values of some vertices only, must hold all")
        arrays = image.get_arrays_from_intent("NIFTI_INTENT_TIME_SERIES") or [
            array for array in image.darrays if array.intent not in NO_SIGNAL
        ]
        if not arrays:
            raise DataError(f"{path}: holds no time series")
        parts = [np.asarray(array.data) for array in arrays]
        for part in parts:
            if part.ndim not in (1, 2) or part.dtype.kind not in "iuf":
                raise DataError(
                    f"{path}: must hold one number per vertex and volume, holds {part.dtype} "
                    f"{part.shape}"
                )
        series = np.concatenate([part.reshape(len(part), -1).T for part in parts], dtype=np.float32)
    check_size(path, volumes=len(series), values=series.shape[1])
    return series


def write_values(path: Path, values: Mapping[str, Float[ndarray, " v"]], *, side: Side) -> None:
    """Writes maps of one hemisphere by their names, each a number for every vertex of the mesh."""
    arrays = [
        GiftiDataArray(
            np.asarray(each, np.float32),
            "NIFTI_INTENT_NONE",
            datatype="NIFTI_TYPE_FLOAT32",
            meta=GiftiMetaData({"Name": name}),
        )
        for name, each in values.items()
    ]
    meta = GiftiMetaData({"AnatomicalStructurePrimary": f"Cortex{side.title()}"})
    write_atomically(path, GiftiImage(meta=meta, darrays=arrays).to_bytes())


def read_head(path: Path) -> tuple[int, float]:
    """Vertices, and seconds from one volume to the next (0 where not stated), of the first array.

    What lies behind the head of the first array is not read.
    """
    parser: Any = _Parser(path, most=ROOM, buffer_size=2**16, head=True)
    with reading(path, "GIFTI"):
        with suppress(_HeadRead), unpacked(path) as file:
            parser.parse(fptr=file)
        array = next(array for array in parser.img.darrays if array.intent not in NO_SIGNAL)
        stated = array.meta.get("TimeStep") or parser.img.meta.get("TimeStep") or "0"
        return array.dims[0], float(stated) / 1000  # the format counts in milliseconds


class _HeadRead(Exception):
    """All that was wanted of a file is known."""


class _Parser(GiftiImageParser):
    """nibabel's, kept from taking more memory than a file of this size may need.

    most: bytes that all arrays together may have. head: stops at the first values of a signal.
    """

    da: Any  # the array that is being read

    def __init__(self, path: Path, *, most: int, head: bool = False, **options: Any):
        super().__init__(**options)
        self.path, self.most, self.head = path, most, head

    def StartElementHandler(self, name: str, attrs: dict[str, str]) -> None:
        super().StartElementHandler(name, attrs)
        if name == "DataArray" and self.da.encoding == ELSEWHERE:
            raise DataError(f"{self.path}: keeps its values in other files, must hold them itself")
        if name == "Data":
            if self.head and self.da.intent not in NO_SIGNAL:
                raise _HeadRead
            self.most -= _bytes(self.da)
            if self.most < 0:
                raise GiftiParseError("its arrays claim to be far longer than the file")

    def flush_chardata(self) -> None:
        packed = self.write_to == "Data" and self.da.encoding == PACKED
        if not packed or self._char_blocks is None:
            super().flush_chardata()
            return
        text, self._char_blocks = "".join(self._char_blocks), None
        self.da.data = _unpack(self.da, text)


def _bytes(array: GiftiDataArray) -> int:
    dtype: Any = data_type_codes.dtype[array.datatype]
    return math.prod(array.dims) * dtype.itemsize


def _unpack(array: GiftiDataArray, text: str) -> ndarray:
    """As nibabel does, but never more than the array claims to hold."""
    unpacker = zlib.decompressobj()
    values = bytearray(unpacker.decompress(base64.b64decode(text), _bytes(array) + 1))
    if not unpacker.eof:
        raise GiftiParseError("an array does not hold as much as its dimensions say")
    order = gifti_endian_codes.byteorder[array.endian]
    dtype: Any = data_type_codes.dtype[array.datatype]
    memory_order: Any = array_index_order_codes.npcode[array.ind_ord]
    return np.frombuffer(values, dtype.newbyteorder(order)).reshape(
        tuple(array.dims), order=memory_order
    )
