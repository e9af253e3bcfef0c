"""Folders that must not be written to, for a superuser neither."""

import ctypes
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DROP = 24  # PR_CAPBSET_DROP
_OVERRIDE = (1, 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


# For `python -c`: starts Python with the arguments that follow.
MINDING_PERMISSIONS = """
import os, sys
from tests.readonly import give_up_override
give_up_override()
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def give_up_override() -> None:
    """The program that is started next minds permissions, root's as well."""
    for capability in _OVERRIDE:
        ctypes.CDLL(None).prctl(_DROP, capability, 0, 0, 0)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    paths = [folder, *folder.rglob("*")]
    modes = {path: path.stat().st_mode for path in paths if not path.is_symlink()}
    try:
        for path, mode in modes.items():
            path.chmod(mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
