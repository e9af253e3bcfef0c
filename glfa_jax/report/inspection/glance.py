"""The first section: what is out of the ordinary, and a table of all subjects."""

import numpy as np

from glfa_jax.data.layouts import SPLITS
from glfa_jax.data.store import Store
from glfa_jax.report.html import escape
from glfa_jax.report.inspection.findings import findings, is_centred
from glfa_jax.report.inspection.inspection import Inspection
from glfa_jax.report.words import value_text


def glance_section(store: Store, inspection: Inspection) -> str:
    found = findings(store, inspection)
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in found)
    text = (
        f"<p>Out of the ordinary, so look there first:</p><ul class='findings'>{items}</ul>"
        if found
        else "<p>Simple checks found nothing out of the ordinary. They see gross mistakes only, so "
        "the maps deserve a look all the same.</p>"
    )
    notes = store.attributes.notes
    if notes:
        items = "".join(f"<li>{escape(note)}</li>" for note in notes)
        text += f"<p>Preparation noted:</p><ul class='findings'>{items}</ul>"
    return text + _table(store, inspection)


def _table(store: Store, inspection: Inspection) -> str:
    heads = (
        *("runs", "volumes", "train samples", "test samples", "missing"),
        *("repeats", "median tSNR", "mean reliability", "largest |z|"),
    )
    rows = []
    for subject, signal in inspection.signals.items():
        runs = [run for run in store.attributes.runs if run["subject"] == subject]
        total, present = sum(signal.total.values()), sum(signal.present.values())
        repeats = store.attributes.repeats[subject]
        tsnr = store.quality("tsnr", subject)[store.mask]
        reliability = store.quality("reliability", subject)[store.mask]
        cells = (
            f"{len(runs)}",
            f"{sum(run['volumes'] for run in runs):,}",
            *(f"{signal.present[split]:,}" for split in SPLITS),
            f"{(total - present) / max(total, 1):.1%}",
            f"{repeats}",
            "–" if is_centred(store, subject) else value_text(float(np.nanmedian(tsnr)), digits=0),
            value_text(float(np.nanmean(reliability)), digits=2) if repeats > 1 else "–",
            value_text(signal.peak, digits=1),
        )
        body = "".join(f"<td>{cell}</td>" for cell in cells)
        rows.append(f"<tr><th scope='row' class='text'>{escape(subject)}</th>{body}</tr>")
    head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in heads)
    return (
        "<div class='scroll' tabindex='0'><table><thead><tr><th scope='col' class='text'>subject"
        f"</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        '<p class="note">missing: share of all samples, train and test, that the subject lacks. '
        "repeats: most showings of one test clip, averaged in the store. tSNR and reliability "
        "are over cortex pixels; the largest |z| is over all samples.</p>"
    )
