"""Files of a simulated study: GIFTI, tables, JSON and arrays."""

import base64
import csv
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from numpy import ndarray


def write_gifti(
    path: Path, series: Float[ndarray, "t v"], *, structure: str, repetition_time: float
) -> None:
    """A functional GIFTI file, one data array a volume; `repetition_time` in seconds.

    Written by hand: nibabel compresses at zlib's default level, here 25 times slower for files 7 %
    smaller.
    """

    def meta(**values: str) -> str:
        items = "".join(f"<MD><Name>{k}</Name><Value>{v}</Value></MD>" for k, v in values.items())
        return f"<MetaData>{items}</MetaData>"

    with path.open("w", encoding="utf-8") as file:
        file.write(
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            '<!DOCTYPE GIFTI SYSTEM "http://www.nitrc.org/frs/download.php/115/gifti.dtd">\n'
            f'<GIFTI Version="1.0" NumberOfDataArrays="{len(series)}">\n'
            # GIFTI counts TimeStep in milliseconds.
            + meta(AnatomicalStructurePrimary=structure, TimeStep=str(1000 * repetition_time))
            + "\n<LabelTable/>\n"
        )
        for volume in series.astype("<f4"):
            data = base64.b64encode(zlib.compress(volume.tobytes(), 1)).decode("ascii")
            file.write(
                '<DataArray Intent="NIFTI_INTENT_TIME_SERIES" DataType="NIFTI_TYPE_FLOAT32" '
                f'ArrayIndexingOrder="RowMajorOrder" Dimensionality="1" Dim0="{len(volume)}" '
                'Encoding="GZipBase64Binary" Endian="LittleEndian" ExternalFileName="" '
                f'ExternalFileOffset="0">{meta()}<Data>{data}</Data></DataArray>\n'
            )
        file.write("</GIFTI>\n")


def write_arrays(path: Path, **arrays: Shaped[ndarray, "..."]) -> None:
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, allow_pickle=False, **arrays)


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=rows[0], delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
