"""Parameters that stay in their files until numpy asks for them.

So a model is never in memory twice: what goes to devices is read, changed in layout and type, put
there and forgotten, one parameter after the other.
"""

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike


@dataclass(frozen=True, eq=False)
class Stored:
    """One parameter of a model folder; `np.asarray` reads it, anew every time.

    tensor: a view of the mapped file, in PyTorch's layout. to_linen: changes the layout, by views
    alone. dtype: of what is read. JAX takes it for no array, so that none is read unnoticed.
    """

    tensor: np.ndarray
    to_linen: Callable[[np.ndarray], np.ndarray]
    dtype: np.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.to_linen(self.tensor).shape

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return self.tensor.size

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        view = self.to_linen(self.tensor)
        array = np.array(view, self.dtype if dtype is None else dtype, order="C")
        release(self.tensor)
        return array

    def in_torch(self) -> "Stored":
        """The same numbers in PyTorch's layout, to be written again."""
        return Stored(self.tensor, lambda x: x, self.dtype)


def release(tensor: np.ndarray) -> None:
    """Drops a tensor's share of a mapped file from memory; used again, it is read again.

    What was written to it is lost. Other arrays are left alone.
    """
    root: Any = tensor
    while root is not None and not isinstance(root, mmap.mmap):
        root = root.obj if isinstance(root, memoryview) else getattr(root, "base", None)
    if root is None or not hasattr(root, "madvise"):
        return
    origin = np.frombuffer(root, np.uint8).__array_interface__["data"][0]
    low, high = (bound - origin for bound in np.lib.array_utils.byte_bounds(tensor))
    start = -(-low // mmap.PAGESIZE) * mmap.PAGESIZE
    length = high // mmap.PAGESIZE * mmap.PAGESIZE - start
    if length > 0:
        root.madvise(mmap.MADV_DONTNEED, start, length)
