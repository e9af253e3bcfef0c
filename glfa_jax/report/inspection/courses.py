"""What a store keeps of every volume, taken apart into runs."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from glfa_jax.data.attributes import StoredRun
from glfa_jax.data.store import Quality, Store
from glfa_jax.report.figures import time_course
from glfa_jax.report.html import Markup


def courses(
    store: Store, subject: str, *, kind: Quality = "course"
) -> list[tuple[StoredRun, Float[ndarray, " t"]]]:
    """The runs of a subject, each with its part of the time course."""
    runs = store.attributes.runs_of(subject)
    ends = np.cumsum([run["volumes"] for run in runs])
    return list(zip(runs, np.split(store.quality(kind, subject), ends[:-1]), strict=True))


def drawn(
    store: Store,
    parts: list[tuple[StoredRun, Float[ndarray, " t"]]],
    *,
    salt: str,
    label: str,
    unit: str = "%",
) -> Markup:
    """What `courses` gives, one run after another, those of the test split in another colour."""
    return time_course(
        [course for _, course in parts],
        marked=[run["split"] == "test" for run, _ in parts],
        step=store.attributes.repetition_time,
        salt=salt,
        label=label,
        unit=unit,
    )
