"""What a store keeps of every volume, taken apart into runs."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from glfa_jax.data.attributes import StoredRun
from glfa_jax.data.store import Quality, Store


def courses(
    store: Store, subject: str, *, kind: Quality = "course"
) -> list[tuple[StoredRun, Float[ndarray, " t"]]]:
    """The runs of a subject, each with its part of the time course."""
    runs = [run for run in store.attributes.runs if run["subject"] == subject]
    ends = np.cumsum([run["volumes"] for run in runs])
    return list(zip(runs, np.split(store.quality(kind, subject), ends[:-1]), strict=True))
