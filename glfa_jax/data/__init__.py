"""From scanner files to training batches, in numpy; no device is ever touched here."""


class DataError(ValueError):
    """Data on disk cannot be used; one sentence says what is wrong and where."""
