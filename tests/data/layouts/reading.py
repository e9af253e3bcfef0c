"""How tests of layouts read a study: to be stopped by the first mistake, or to go on."""

import pytest

from glfa_jax import config
from glfa_jax.data import DataError
from glfa_jax.data.layouts import Problems, Study
from glfa_jax.data.layouts.reading import read_study


def load(data: config.Data) -> Study:
    return read_study(data, Problems(skip=False))


def rejects(message: str, data: config.Data) -> Study:
    """Raises when told to stop; notes the same sentence when told to go on, and gives the rest."""
    with pytest.raises(DataError, match=message) as caught:
        load(data)
    assert "\n" not in str(caught.value)
    problems = Problems(skip=True)
    study = read_study(data, problems)
    assert str(caught.value) in problems.noted
    return study
