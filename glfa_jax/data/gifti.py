"""GIFTI files opened with the errors that users make named."""

from pathlib import Path
from typing import Literal

from nibabel.gifti.gifti import GiftiImage

from glfa_jax.data import DataError
from glfa_jax.data.damage import reading

Side = Literal["left", "right"]
SIDES: tuple[Side, Side] = ("left", "right")


def open_gifti(path: Path, *, side: Side) -> GiftiImage:
    """The image of one hemisphere; raises DataError where it is the other one."""
    with reading(path, "GIFTI"):
        image = GiftiImage.from_filename(path)
        stated = {
            meta["AnatomicalStructurePrimary"]
            for meta in (image.meta, *(array.meta for array in image.darrays))
            if "AnatomicalStructurePrimary" in meta
        }
    other = {"left": "CortexRight", "right": "CortexLeft"}[side]
    if stated == {other}:
        raise DataError(f"{path}: holds {other}, must hold the {side} hemisphere; left comes first")
    return image
