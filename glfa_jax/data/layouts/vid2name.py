"""The captions of the Fudan set: a pickled dict in a numpy file, read without running it."""

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from glfa_jax.data import DataError, reading
from glfa_jax.data.captions import LONGEST, MISSING
from glfa_jax.data.layouts.numpy_pickle import FUNCTIONS, NAMES, Array, read_header, told
from glfa_jax.files import MOST_TEXT
from glfa_jax.unpickle import PickledError, load

MOST_INSTRUCTIONS = 2**19  # enough for fifty thousand captions, however they are written


def read_vid2name(path: Path) -> dict[int, str]:
    """{video id: caption}. Raises DataError for anything else, code above all."""
    try:
        with reading(path, "numpy file of captions"):
            if (size := path.stat().st_size) > MOST_TEXT:
                raise PickledError(f"{size:,} bytes, far more than captions need")
            return _captions(_content(io.BytesIO(path.read_bytes())))
    except PickledError as error:
        raise DataError(f"{path}: {error}") from None


def _content(file: io.BytesIO) -> Any:
    _, dtype = read_header(file)
    if dtype != np.dtype(object):
        raise PickledError(f"must hold a pickled dict, holds {dtype!s:.100}")
    return load(file, functions=FUNCTIONS, names=NAMES, persistent=_none, most=MOST_INSTRUCTIONS)


def _captions(content: Any) -> dict[int, str]:
    items = content.items if isinstance(content, Array) else [content]
    if not isinstance(items, list) or len(items) != 1 or not isinstance(items[0], dict):
        raise PickledError("must hold one dict of video id and caption")
    stripped = cache(_stripped)  # many ids may share a long caption
    captions = {}
    for video, caption in items[0].items():
        if type(video) is not int or not isinstance(caption, str) or not stripped(caption):
            raise PickledError(
                f"must map integer ids to captions, maps {told(video)} to {told(caption)}"
            )
        captions[video] = stripped(caption)
    return captions


def _stripped(caption: str) -> str:
    """Nothing where no caption is given; raises for what is no text that can be written."""
    text = caption.strip()
    return "" if text in MISSING or len(text.encode()) > LONGEST else text


def _none(identity: Any) -> Any:
    raise PickledError("refers to objects kept elsewhere, must be a dict of ids and captions")
