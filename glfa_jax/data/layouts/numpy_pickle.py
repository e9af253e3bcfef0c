"""Numpy's objects in pickles as text and whole numbers, for `glfa_jax.unpickle.load`."""

import math
import struct
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from glfa_jax.unpickle import PickledError, Stateful

NAMES = ("numpy.ndarray",)  # that a pickle of them names
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an .npy file, which is left where its values begin."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise PickledError(f"numpy format {version} is not read")
    shape, columns_first, dtype = _HEADERS[version](file)
    if columns_first and len(shape) > 1:
        raise PickledError("its values lie column by column, must lie row by row")
    return shape, dtype


def told(value: Any) -> str:
    """A value for a message; a small file may hold a container that is endless to walk through."""
    plain = value is None or isinstance(value, (str, bytes, int, float))
    return f"{value!r:.50}" if plain else f"a {type(value).__name__}"


class Array(Stateful):
    """An array: of objects, the list of them all; of text, what `texts` gives.

    shape: as the pickle states it.
    """

    shape: tuple[int, ...] = ()
    items: Any = None
    _kind: Any = None

    def set_state(self, state: Any) -> None:
        _, self.shape, self._kind, columns_first, self.items = state
        if not all(type(length) is int and 0 <= length < 2**32 for length in self.shape):
            raise PickledError("holds an array whose shape is no tuple of whole numbers")
        if columns_first and len(self.shape) > 1:
            raise PickledError("its values lie column by column, must lie row by row")

    def texts(self) -> list[Any]:
        """Its values in one list; text where the array is one of text."""
        if isinstance(self.items, list):
            return self.items
        if not isinstance(self._kind, _Type) or not isinstance(self.items, bytes):
            raise PickledError("holds an array of no text")
        return self._kind.texts(self.items, math.prod(self.shape))


class _Type(Stateful):
    """A number or text type by the letters numpy gives it: i8, U12; byte order comes later."""

    def __init__(self, letters: Any, *_: Any):
        if not isinstance(letters, str):
            raise PickledError(f"holds a number type called a {type(letters).__name__}")
        self.letters, self.order = letters, "<"

    def set_state(self, state: Any) -> None:
        self.order = ">" if state[1] == ">" else "<"

    def texts(self, content: bytes, count: int) -> list[str]:
        width = 4 * int(self.letters[1:]) if self.letters[:1] == "U" else 0
        if not width or len(content) != width * count:
            raise PickledError(f"holds an array of type {self.letters!r:.50}, must be of text")
        return [self._text(content[i : i + width]) for i in range(0, len(content), width)]

    def scalar(self, content: bytes) -> int | str:
        kind = self.letters[:1]
        if kind == "U":
            return self._text(content)
        if kind in ("i", "u"):
            sizes = {1: "b", 2: "h", 4: "i", 8: "q"}
            letter = sizes[int(self.letters[1:])]
            (number,) = struct.unpack(
                self.order + (letter if kind == "i" else letter.upper()), content
            )
            return number
        raise PickledError(f"holds a value of type {self.letters!r:.50}, must be integers and text")

    def _text(self, content: bytes) -> str:
        return content.decode("utf-32-be" if self.order == ">" else "utf-32-le").rstrip("\0")


def _scalar(kind: Any, content: Any) -> int | str:
    if not isinstance(kind, _Type) or not isinstance(content, bytes):
        raise PickledError("holds a number without a type or bytes")
    return kind.scalar(content)


# What a pickle of them calls.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "numpy.dtype": _Type,
    **{
        f"numpy.{core}.multiarray.{name}": function
        for core in ("core", "_core")
        for name, function in {"_reconstruct": lambda *_: Array(), "scalar": _scalar}.items()
    },
}
