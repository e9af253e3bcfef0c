"""What the host's memory allocator keeps."""

import ctypes
import sys


def give_back_freed() -> None:
    """Returns freed memory to the system, where the C library can (glibc).

    A compiler's gigabytes lie in small pieces that the allocator keeps for later, but what is
    placed next is large and takes new memory.
    """
    if not sys.platform.startswith("linux"):
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
