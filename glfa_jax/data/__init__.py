"""From scanner files to training batches, in numpy; no device is ever touched here."""

from functools import partial
from pathlib import Path

from glfa_jax import files
from glfa_jax.errors import InputError


class DataError(InputError):
    """Data on disk cannot be used; one sentence says what is wrong and where."""


# Damaged files, as DataError.
reading = partial(files.reading, error=DataError)


def placed(path: Path) -> str:
    """A path that is not there, and what it counts from where it is not absolute."""
    return str(path) if path.is_absolute() else f"{path} (counted from {Path.cwd()})"
