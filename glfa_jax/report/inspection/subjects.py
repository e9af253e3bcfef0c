"""The table of all subjects."""

import numpy as np

from glfa_jax.data.layouts import SPLITS
from glfa_jax.data.store import Store
from glfa_jax.report.inspection.findings import is_centred
from glfa_jax.report.inspection.inspection import Inspection
from glfa_jax.report.tables import Row, Table, cells
from glfa_jax.report.words import value_text

_HEADS = (
    *("subject", "runs", "volumes", "train samples", "test samples", "missing"),
    *("repeats", "median tSNR", "mean reliability", "largest |z|"),
)
_NOTE = (
    "missing: share of all samples, train and test, that the subject lacks. repeats: most showings "
    "of one test clip, averaged in the store. tSNR and reliability are over cortex pixels; the "
    "largest |z| is over all samples."
)


def subjects_table(store: Store, inspection: Inspection) -> Table:
    rows = tuple(_row(store, inspection, subject) for subject in inspection.signals)
    return Table("Table of subjects", labels=1, head=cells(_HEADS), rows=rows, notes=(_NOTE,))


def _row(store: Store, inspection: Inspection, subject: str) -> Row:
    signal = inspection.signals[subject]
    runs = [run for run in store.attributes.runs if run["subject"] == subject]
    total, present = sum(signal.total.values()), sum(signal.present.values())
    repeats = store.attributes.repeats[subject]
    tsnr = store.quality("tsnr", subject)[store.mask]
    reliability = store.quality("reliability", subject)[store.mask]
    return cells(
        [
            subject,
            f"{len(runs)}",
            f"{sum(run['volumes'] for run in runs):,}",
            *(f"{signal.present[split]:,}" for split in SPLITS),
            f"{(total - present) / max(total, 1):.1%}",
            f"{repeats}",
            "–" if is_centred(store, subject) else value_text(float(np.nanmedian(tsnr)), digits=0),
            value_text(float(np.nanmean(reliability)), digits=2) if repeats > 1 else "–",
            value_text(signal.peak, digits=1),
        ]
    )
