"""The page as a whole: head, sections and where a store comes from."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from glfa_jax.data import DataError
from glfa_jax.data.layouts import LAYOUTS, SPLITS
from glfa_jax.data.reuse import cleaning_in
from glfa_jax.data.store import Store
from glfa_jax.files import whole_file
from glfa_jax.report import html
from glfa_jax.report.html import Markup
from glfa_jax.report.inspection.cleaning import cleaning_section
from glfa_jax.report.inspection.clips import clips_section
from glfa_jax.report.inspection.courses import courses, drawn
from glfa_jax.report.inspection.findings import findings, is_centred
from glfa_jax.report.inspection.inspection import Inspection, inspect
from glfa_jax.report.inspection.maps import between_section, maps_section
from glfa_jax.report.tables import Row, Table, cells
from glfa_jax.report.words import count_text, listing, value_text

# Measures of a run, as the table of runs calls them.
MEASURED = {
    "drift": "drift",
    "drift_cleaned": "drift, cleaned",
    "displacement": "mean displacement, mm",
    "motion": "moves with the head",
    "motion_cleaned": "moves with the head, cleaned",
    "censored": "censored",
}


def write(store: Store, target: Path, *, clips: int, progress: bool) -> None:
    """Writes the page, or nothing; raises InputError."""
    if target.is_dir():
        raise DataError(f"{target}: is a folder, --out must name a file such as look.html")
    # Opened before the long reading: a place that cannot be written is named at once.
    with whole_file(target) as place, place.open("w", encoding="utf-8") as file:
        file.write(render(store, inspect(store, progress=progress), clips=clips))


def render(store: Store, inspection: Inspection, *, clips: int) -> str:
    """The page of a store; clips: how many test clips play on it."""
    about = store.attributes
    count = {split: store.num_clips(split) for split in SPLITS}
    names = listing(about.subjects)
    return html.render(
        "inspection.html",
        title=f"Prepared data: {store.path.name}",
        summary=(
            f"{count_text(len(about.subjects), 'subject')} ({names}), {count['train']:,} train and "
            f"{count['test']:,} test samples, on a flat map of {store.mask.sum():,} cortex pixels."
        ),
        facts=_facts(store),
        findings=findings(store, inspection),
        notes=about.notes,
        subjects=_subjects_table(store, inspection),
        layout=LAYOUTS.get(about.layout),  # None: not known to this installation
        maps=maps_section(store, inspection),
        courses=list(_courses(store)),
        cleaning=cleaning_section(store),
        clips=clips_section(store, clips),
        between=between_section(store, inspection),
        provenance=_provenance(store),
    )


def _facts(store: Store) -> list[tuple[str, str]]:
    about = store.attributes
    height, width = store.mask.shape
    volumes = count_text(round(about.lag_seconds / about.repetition_time), "volume")
    seconds = about.window * about.repetition_time
    return [
        ("Layout, space", f"{about.layout}, {about.space}"),
        ("Repetition time (TR)", f"{about.repetition_time:g} s"),
        ("Lag", f"{about.lag_seconds:g} s ({volumes})"),
        ("Window", f"{count_text(about.window, 'volume')}, {seconds:g} s"),
        ("Clip", f"{about.clip_seconds:g} s"),
        ("Flat map", f"{height} × {width} pixels, {store.mask.mean():.0%} of them in the region"),
        ("Cleaning", _cleaning(store)),
        ("Read from", str(about.provenance.get("root", "unknown"))),
        ("Prepared by", f"glfa_jax {about.provenance.get('glfa_jax', 'unknown')}"),
    ]


def _cleaning(store: Store) -> str:
    words = cleaning_in(store)
    said = "none: drift and motion that the scans came with are in them"
    return said if words == "none" else words


def _subjects_table(store: Store, inspection: Inspection) -> Table:
    heads = ("subject", "runs", "volumes", "train samples", "test samples", "missing", "repeats")
    heads += ("median tSNR", "mean reliability", "largest |z|")
    rows = tuple(_subject(store, inspection, subject) for subject in inspection.signals)
    return Table("Table of subjects", labels=1, head=cells(heads), rows=rows)


def _subject(store: Store, inspection: Inspection, subject: str) -> Row:
    signal = inspection.signals[subject]
    runs = store.attributes.runs_of(subject)
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


def _courses(store: Store) -> Iterator[tuple[str, Markup]]:
    """A title and the mean over the cortex of every subject over all its runs."""
    for number, subject in enumerate(store.attributes.subjects):
        parts = courses(store, subject)
        if not parts:
            continue
        label = f"Mean signal of the cortex over all runs, subject {subject}"
        svg = drawn(store, parts, salt=f"course{number}", label=label)
        first, last = (parts[i][0]["name"] for i in (0, -1))
        yield f"subject {subject}, {count_text(len(parts), 'run')}: {first} to {last}", svg


def _provenance(store: Store) -> dict[str, Any]:
    about = store.attributes
    files = about.provenance.get("files", {})
    measures = {
        name: head for name, head in MEASURED.items() if any(name in run for run in about.runs)
    }
    rows = (
        (
            *(run["subject"], run["name"], run["split"]),
            *(f"{run['volumes']:,}", f"{run['missing']:,}"),
            *(value_text(run.get(name), digits=2) for name in measures),
        )
        for run in about.runs
    )
    return {
        "files": count_text(len(files), "file"),
        "size": _bytes(sum(known["size"] for known in files.values())),
        "identity": about.identity[:16],
        "settings": json.dumps(about.provenance.get("settings", {}), indent=1, sort_keys=True),
        "runs": Table(
            title="Table of runs",
            labels=3,
            head=cells(
                [
                    *("subject", "run", "split", "volumes", "trials without their window"),
                    *measures.values(),
                ]
            ),
            rows=tuple(map(cells, rows)),
        ),
    }


def _bytes(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.3g} {unit}"
