"""From `data.layout` to the reader that knows it."""

from collections.abc import Callable

from glfa_jax import config
from glfa_jax.data import DataError, placed
from glfa_jax.data.layouts import Problems, Study, bids, fudan, wen2018

# The names are those that `config.Data.layout` allows.
LAYOUTS: dict[str, Callable[[config.Data, Problems], Study]] = {
    "bids": bids.read_study,
    "wen2018": wen2018.read_study,
    "fudan": fudan.read_study,
}


def read_study(data: config.Data, problems: Problems) -> Study:
    """Everything but the time series; what cannot be used goes to `problems`."""
    if not data.root.is_dir():
        raise DataError(f"{placed(data.root)}: no such study folder")
    return LAYOUTS[data.layout](data, problems)
