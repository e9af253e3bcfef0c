"""The section on drift and motion: what was in the scans, and what cleaning left of it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from glfa_jax.data.cleaning.measures import SLOW
from glfa_jax.data.reuse import cleaning_in
from glfa_jax.data.store import Store, drifting_run
from glfa_jax.report.html import Markup
from glfa_jax.report.inspection.courses import courses, drawn
from glfa_jax.report.pictures import BLACK_WHITE, Picture, Scale, flat_map
from glfa_jax.report.tables import Table, cells
from glfa_jax.report.words import value_text

# Black and white of a carpet plot, z; most of what is larger is a spike.
CARPET = Scale(-2.5, 2.5, BLACK_WHITE)
STATES = ("as scanned", "after cleaning")
# What a column of the table says, and the measure of a run that it is the median of.
MEASURES = {
    "drift": ("drift", 2),
    "tSNR": ("tsnr", 0),
    "mm": ("displacement", 2),
    "moves with the head": ("motion", 2),
}


def cleaning_section(store: Store) -> dict[str, Any]:
    """words: what was done. table: a row a subject and state. carpets, displacements: a title and
    what is to be seen, for each subject; none for stores of before they were measured."""
    about = store.attributes
    return {
        "words": cleaning_in(store),
        "table": _table(store) if "carpet" in about.kinds else None,
        "carpets": list(_carpets(store)) if "carpet" in about.kinds else [],
        "displacements": list(_displacements(store)) if "displacement" in about.kinds else [],
    }


def measured(store: Store, subject: str, name: str) -> float | None:
    """The median over the subject's runs of a measure, where there is any."""
    known = [run[name] for run in store.attributes.runs_of(subject) if name in run]
    return float(np.median(known)) if known else None


def slow_power(course: Float[ndarray, " t"], *, seconds: float) -> float:
    """Share of a course's power below 0.01 Hz, the mean left out; NaN where it does not vary."""
    power = np.abs(np.fft.rfft(course - course.mean())) ** 2
    below = np.fft.rfftfreq(len(course), seconds) < SLOW
    return float(power[below].sum() / power.sum()) if power.sum() > 0 else float("nan")


def _table(store: Store) -> Table:
    rows = []
    for subject in store.attributes.subjects:
        for state, after in zip(STATES, ("", "_cleaned"), strict=True):
            if after and "course_cleaned" not in store.attributes.kinds:
                continue
            found = {
                head: value_text(measured(store, subject, name + after), digits=digits)
                for head, (name, digits) in MEASURES.items()
            }
            if after:
                runs = store.attributes.runs_of(subject)
                found["mm"] = "–"  # the head moved as it moved
                censored = f"{sum(run.get('censored', 0) for run in runs):,}"
            else:
                censored = "–"
            slow = value_text(_slow(store, subject, after), digits=2)
            rows.append(cells([subject, state, slow, *found.values(), censored]))
    head = ("subject", "", "below 0.01 Hz", *MEASURES, "censored")
    return Table("Table of drift and motion", labels=2, head=cells(head), rows=tuple(rows))


def _slow(store: Store, subject: str, after: str) -> float | None:
    kind = "course_cleaned" if after else "course"
    seconds = store.attributes.repetition_time
    shares = [
        slow_power(course, seconds=seconds) for _, course in courses(store, subject, kind=kind)
    ]
    known = [share for share in shares if np.isfinite(share)]
    return float(np.median(known)) if known else None


def _carpets(store: Store) -> Iterator[tuple[str, list[tuple[Picture, str]]]]:
    for subject in store.attributes.subjects:
        run = drifting_run(store.attributes, subject)
        shown = []
        for state, values in zip(STATES, store.quality("carpet", subject), strict=False):
            words = f"Carpet of subject {subject}, run {run['name']}, {state}"
            everywhere = np.ones(values.shape, bool)
            shown.append((flat_map(values, mask=everywhere, scale=CARPET, words=words), state))
        yield f"subject {subject}, run {run['name']}", shown


def _displacements(store: Store) -> Iterator[tuple[str, Markup]]:
    for number, subject in enumerate(store.attributes.subjects):
        parts = courses(store, subject, kind="displacement")
        if not any(np.isfinite(course).any() for _, course in parts):
            continue
        label = f"Displacement of the head over all runs, subject {subject}"
        yield (
            f"subject {subject}",
            drawn(store, parts, salt=f"moved{number}", label=label, unit="mm"),
        )
