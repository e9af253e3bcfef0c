"""The prepared store of a configuration; a study that is to be simulated is simulated first."""

import os

from glfa_jax import config
from glfa_jax.data.preparing import prepare as prepare_store
from glfa_jax.data.store import Store
from glfa_jax.simulate.study import write_study


def prepare(data: config.Data, *, progress: bool = True) -> Store:
    """As `data.preparing.prepare`, with `data.simulation` written to `data.root` before."""
    if data.simulation is not None and not os.path.lexists(data.store):
        write_study(data.simulation, data.root, progress=progress)  # leaves an equal one alone
    return prepare_store(data, progress=progress)
