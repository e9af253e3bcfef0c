"""The captions of the Fudan set: a pickled dict in a numpy file, read without running it."""

import io
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from glfa_jax.data import DataError, reading
from glfa_jax.data.captions import MISSING
from glfa_jax.files import MOST_TEXT
from glfa_jax.unpickle import PickledError, Stateful, load

LONGEST = 2**17  # bytes of a caption
MOST_INSTRUCTIONS = 2**19  # enough for fifty thousand captions, however they are written
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


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
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise PickledError(f"numpy format {version} is not read")
    _, _, dtype = _HEADERS[version](file)
    if dtype != np.dtype(object):
        raise PickledError(f"must hold a pickled dict, holds {dtype!s:.100}")
    names = ("numpy.ndarray",)
    return load(file, functions=_FUNCTIONS, names=names, persistent=_none, most=MOST_INSTRUCTIONS)


def _captions(content: Any) -> dict[int, str]:
    items = content.items if isinstance(content, _Array) else [content]
    if not isinstance(items, list) or len(items) != 1 or not isinstance(items[0], dict):
        raise PickledError("must hold one dict of video id and caption")
    stripped = cache(_stripped)  # many ids may share a long caption
    captions = {}
    for video, caption in items[0].items():
        if type(video) is not int or not isinstance(caption, str) or not stripped(caption):
            raise PickledError(
                f"must map integer ids to captions, maps {_told(video)} to {_told(caption)}"
            )
        captions[video] = stripped(caption)
    return captions


def _stripped(caption: str) -> str:
    """Nothing where no caption is given; raises for what is no text that can be written."""
    text = caption.strip()
    return "" if text in MISSING or len(text.encode()) > LONGEST else text


def _told(value: Any) -> str:
    """A value for a message; a small file may hold a container that is endless to walk through."""
    plain = value is None or isinstance(value, (str, bytes, int, float))
    return f"{value!r:.50}" if plain else f"a {type(value).__name__}"


class _Array(Stateful):
    """An array of objects, of which the list of its items is all that matters."""

    items: Any = None

    def set_state(self, state: Any) -> None:
        self.items = state[-1]


class _Type(Stateful):
    """A number or text type by the letters numpy gives it: i8, U12; byte order comes later."""

    def __init__(self, letters: Any, *_: Any):
        if not isinstance(letters, str):
            raise PickledError(f"holds a number type called a {type(letters).__name__}")
        self.letters, self.order = letters, "<"

    def set_state(self, state: Any) -> None:
        self.order = ">" if state[1] == ">" else "<"

    def scalar(self, content: bytes) -> int | str:
        kind = self.letters[:1]
        if kind == "U":
            encoding = "utf-32-be" if self.order == ">" else "utf-32-le"
            return content.decode(encoding).rstrip("\0")
        if kind in ("i", "u"):
            sizes = {1: "b", 2: "h", 4: "i", 8: "q"}
            letter = sizes[int(self.letters[1:])]
            (number,) = struct.unpack(
                self.order + (letter if kind == "i" else letter.upper()), content
            )
            return number
        raise PickledError(f"holds a value of type {self.letters!r:.50}, must be integers and text")


def _scalar(kind: Any, content: Any) -> int | str:
    if not isinstance(kind, _Type) or not isinstance(content, bytes):
        raise PickledError("holds a number without a type or bytes")
    return kind.scalar(content)


def _none(identity: Any) -> Any:
    raise PickledError("refers to objects kept elsewhere, must be a dict of ids and captions")


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "numpy.dtype": _Type,
    **{
        f"numpy.{core}.multiarray.{name}": function
        for core in ("core", "_core")
        for name, function in {"_reconstruct": lambda *_: _Array(), "scalar": _scalar}.items()
    },
}
