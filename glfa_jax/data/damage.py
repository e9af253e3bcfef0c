"""Damaged data files: `glfa_jax.files.reading`, as DataError."""

from functools import partial

from glfa_jax import files
from glfa_jax.data import DataError

reading = partial(files.reading, error=DataError)
