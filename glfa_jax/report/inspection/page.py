"""The page as a whole: head, sections and where a store comes from."""

import json
from pathlib import Path

from glfa_jax.data import DataError
from glfa_jax.data.layouts import SPLITS
from glfa_jax.data.store import Store
from glfa_jax.files import whole_file
from glfa_jax.report.html import escape, fill
from glfa_jax.report.inspection.clips import clips_section, rhythm
from glfa_jax.report.inspection.courses import courses_section
from glfa_jax.report.inspection.glance import glance_section
from glfa_jax.report.inspection.inspection import Inspection, inspect
from glfa_jax.report.inspection.pictures import between_section, maps_section
from glfa_jax.report.words import count_text, listing


def write(store: Store, target: Path, *, clips: int, progress: bool) -> None:
    """Writes the page, or nothing; raises InputError."""
    if target.is_dir():
        raise DataError(f"{target}: is a folder, --out must name a file such as look.html")
    # Opened before the long reading: a place that cannot be written is told at once.
    with whole_file(target) as place, place.open("w", encoding="utf-8") as file:
        file.write(render(store, inspect(store, progress=progress), clips=clips))


def render(store: Store, inspection: Inspection, *, clips: int) -> str:
    about = store.attributes
    count = {split: store.num_clips(split) for split in SPLITS}
    names = listing(about.subjects)
    return fill(
        "look.html",
        videos=False,
        title=escape(f"Prepared data: {store.path.name}"),
        summary=escape(
            f"{count_text(len(about.subjects), 'subject')} ({names}), {count['train']:,} train and "
            f"{count['test']:,} test samples, on a flat map of {store.mask.sum():,} cortex pixels."
        ),
        rhythm=rhythm(store),
        facts=_facts(store),
        findings=glance_section(store, inspection),
        maps=maps_section(store, inspection),
        courses=courses_section(store),
        clips=clips_section(store, clips),
        subjects=between_section(store, inspection),
        provenance=_provenance(store),
    )


def _facts(store: Store) -> str:
    about = store.attributes
    height, width = store.mask.shape
    volumes = round(about.lag_seconds / about.repetition_time)
    facts = [
        ("Layout, space", f"{about.layout}, {about.space}"),
        ("Repetition time (TR)", f"{about.repetition_time:g} s"),
        ("Lag", f"{about.lag_seconds:g} s ({count_text(volumes, 'volume')})"),
        (
            "Window",
            f"{count_text(about.window, 'volume')}, {about.window * about.repetition_time:g} s",
        ),
        ("Clip", f"{about.clip_seconds:g} s"),
        ("Flat map", f"{height} × {width} pixels, {store.mask.mean():.0%} of them in the region"),
        ("Read from", str(about.provenance.get("root", "unknown"))),
        ("Prepared by", f"glfa_jax {about.provenance.get('glfa_jax', 'unknown')}"),
    ]
    return "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in facts
    )


def _provenance(store: Store) -> str:
    about = store.attributes
    rows = "".join(
        f"<tr><th scope='row' class='text'>{escape(str(run['subject']))}</th>"
        f"<td class='text'>{escape(str(run['name']))}</td>"
        f"<td class='text'>{escape(str(run['split']))}</td>"
        f"<td>{run['volumes']:,}</td><td>{run['missing']:,}</td></tr>"
        for run in about.runs
    )
    heads = "".join(
        f"<th scope='col' class='text'>{name}</th>" for name in ("subject", "run", "split")
    )
    settings = json.dumps(about.provenance.get("settings", {}), indent=1, sort_keys=True)
    files = about.provenance.get("files", {})
    size = sum(known["size"] for known in files.values())
    return (
        f"<p>Prepared from {count_text(len(files), 'file')}, {_bytes(size)}. The store's "
        "<code>zarr.json</code> names each with size and SHA-256. Identity of settings and files: "
        f"<code>{escape(about.identity[:16])}</code>.</p>"
        f"<details><summary>Show the {len(about.runs)} runs</summary><div class='scroll' "
        f"tabindex='0'><table><thead><tr>{heads}<th scope='col'>volumes</th>"
        "<th scope='col'>trials without their window</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div></details>"
        "<details><summary>Show the settings of the preparation</summary>"
        f"<pre>{escape(settings)}</pre></details>"
    )


def _bytes(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.3g} {unit}"
