"""From scanner files to training batches, in numpy; no device is ever touched here."""

from glfa_jax.errors import InputError


class DataError(InputError):
    """Data on disk cannot be used; one sentence says what is wrong and where."""
