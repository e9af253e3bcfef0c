"""A study as its layout reads it."""

from glfa_jax import config
from glfa_jax.data import DataError, placed
from glfa_jax.data.layouts import Problems, Study, layout_of


def read_study(data: config.Data, problems: Problems) -> Study:
    """Everything but the time series; what cannot be used goes to `problems`."""
    layout = layout_of(data)
    if not data.root.is_dir():
        raise DataError(f"{placed(data.root)}: no such study folder")
    return layout.read(data, problems)
