"""A page to look at what was prepared: python -m glfa_jax.data.look STORE."""

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from html import escape
from itertools import combinations
from pathlib import Path

import numpy as np

from glfa_jax.data import DataError
from glfa_jax.data.findings import courses, findings, is_centred
from glfa_jax.data.inspection import Inspection, Pair, inspect, spread_evenly
from glfa_jax.data.layouts import SPLITS
from glfa_jax.data.store import Store
from glfa_jax.data.video import resize
from glfa_jax.errors import InputError
from glfa_jax.report import figures
from glfa_jax.report.html import fill
from glfa_jax.report.maps import Scale, colour_bar, cropped, film, keyframes, picture, playing
from glfa_jax.report.words import absent_note, listing, value_text

CLIPS = 4
# Wider clips are made smaller, so that the page stays light.
WIDEST = 320
# More pairs of subjects than these have their maps averaged over each subject's pairs.
MOST_PAIRS = 10
COLUMNS = 4


def write(store: Store, target: Path, *, clips: int, progress: bool) -> None:
    """Writes the page, or nothing; raises DataError."""
    if target.is_dir():
        raise DataError(f"{target}: is a folder, --out must name a file such as look.html")
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        # Opened before the long reading: a place that cannot be written is told at once.
        with aside.open("w", encoding="utf-8") as file:
            page = render(store, inspect(store, progress=progress), clips=clips)
            file.write(page)
        aside.replace(target)
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror})") from None
    finally:
        aside.unlink(missing_ok=True)


def render(store: Store, inspection: Inspection, *, clips: int) -> str:
    about = store.attributes
    count = {split: store.num_clips(split) for split in SPLITS}
    names = listing(about.subjects)
    return fill(
        "look.html",
        title=escape(f"Prepared data: {store.path.name}"),
        summary=escape(
            f"{_number(len(about.subjects), 'subject')} ({names}), {count['train']:,} train and "
            f"{count['test']:,} test samples, on a flat map of {store.mask.sum():,} cortex pixels."
        ),
        rhythm=_rhythm(store),
        facts=_facts(store),
        findings=_findings(store, inspection),
        maps=_maps(store, inspection),
        courses=_courses(store),
        clips=_clips(store, clips),
        subjects=_subjects(store, inspection),
        provenance=_provenance(store),
    )


def _facts(store: Store) -> str:
    about = store.attributes
    height, width = store.mask.shape
    volumes = round(about.lag_seconds / about.repetition_time)
    facts = [
        ("Layout, space", f"{about.layout}, {about.space}"),
        ("Repetition time (TR)", f"{about.repetition_time:g} s"),
        ("Lag", f"{about.lag_seconds:g} s ({_number(volumes, 'volume')})"),
        (
            "Window",
            f"{_number(about.window, 'volume')}, {about.window * about.repetition_time:g} s",
        ),
        ("Clip", f"{about.clip_seconds:g} s"),
        ("Flat map", f"{height} × {width}, {store.mask.mean():.0%} cortex in the region"),
        ("Read from", str(about.provenance.get("root", "unknown"))),
        ("Prepared by", f"glfa_jax {about.provenance.get('glfa_jax', 'unknown')}"),
    ]
    return "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in facts
    )


# --- at a glance --------------------------------------------------------------------------------


def _findings(store: Store, inspection: Inspection) -> str:
    found = findings(store, inspection)
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in found)
    text = (
        f"<p>Out of the ordinary, so look there first:</p><ul class='findings'>{items}</ul>"
        if found
        else "<p>The checks below this page found nothing out of the ordinary. They see gross "
        "mistakes only, so the maps deserve a look all the same.</p>"
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


# --- maps ---------------------------------------------------------------------------------------


def _maps(store: Store, inspection: Inspection) -> str:
    mask, subjects = store.mask, store.attributes.subjects
    maps = {
        kind: [store.quality(kind, subject) for subject in subjects]
        for kind in ("mean", "tsnr", "reliability")
    }
    coverage = [
        np.where(inspection.signals[subject].moving, 1.0, 0.0).astype(np.float32)
        for subject in subjects
    ]
    cortex = {kind: [values[mask] for values in each] for kind, each in maps.items()}
    repeated = [store.attributes.repeats[subject] > 1 for subject in subjects]
    unrepeated = [name for name, known in zip(subjects, repeated, strict=True) if not known]
    reliable = [
        values if known else np.full_like(values, np.nan)
        for values, known in zip(maps["reliability"], repeated, strict=True)
    ]
    side = (
        "The flat map is the picture that the data set itself uses."
        if store.attributes.layout == "fudan"
        else "Left hemisphere on the left, right hemisphere on the right, dorsal up."
    )
    parts = [
        f"<p>{side} All subjects of a row share one colour scale, from the 1st to the 99th "
        "percentile; what lies beyond takes the end colours.</p>",
        _row(
            store,
            "Mean signal",
            "The raw signal averaged over all volumes and runs, in the scanner's units. It should "
            "change smoothly and be of one level; dark holes near the rim are where the signal "
            "drops out beside air, sharp edges are where coverage ends.",
            maps["mean"],
            Scale.spanning(cortex["mean"]),
            unit="",
        ),
        _row(
            store,
            "Temporal signal-to-noise ratio",
            "Mean over standard deviation of each pixel within a run, averaged over runs. Higher is "
            "steadier. One hemisphere or subject far below the others points to motion, to a wrong "
            "file or to poor coverage; stripes or single bright patches, to masked or filled data.",
            maps["tsnr"],
            Scale.spanning(cortex["tsnr"], from_zero=True),
            unit="",
        ),
        _row(
            store,
            "Repeat reliability",
            "Correlation between the averages of odd and of even showings of the test clips. Early "
            "visual cortex should be the most reliable. Values around zero everywhere mean that the "
            "times of the clips, the order of runs or the repeat numbers are wrong, or that "
            "there is little signal."
            + (f" Without repeats: subject {listing(unrepeated)}." if unrepeated else ""),
            reliable,
            Scale.around_zero(figures.map_limit(reliable, mask)),
            unit="r",
        ),
        _row(
            store,
            "Mask and coverage",
            "Yellow: pixels of the region that carry signal. Purple: pixels of the region that "
            "never vary, which should be few or none. Clear: outside the region; nothing there "
            "reaches the models.",
            coverage,
            Scale(0.0, 1.0, Scale.spanning([]).colours),
            unit=None,
        ),
    ]
    return "".join(parts)


def _row(
    store: Store,
    name: str,
    words: str,
    maps: Sequence[np.ndarray],
    scale: Scale,
    *,
    unit: str | None,
    names: Sequence[str] | None = None,
) -> str:
    """One map a subject, with a colour bar unless `unit` is None."""
    figures_ = [
        _figure(values, store.mask, scale, f"{name}, {title}", title)
        for values, title in zip(
            maps,
            names or [f"subject {subject}" for subject in store.attributes.subjects],
            strict=True,
        )
    ]
    bar = "" if unit is None else colour_bar(scale, unit=unit, label=f"Colour scale of: {name}")
    columns = max(2, min(COLUMNS, len(figures_)))
    return (
        f"<h3>{escape(name)}</h3><p class='note'>{escape(words)}</p>"
        f'<div class="maps" style="--columns:{columns}">{"".join(figures_)}</div>{bar}'
    )


def _figure(values: np.ndarray, mask: np.ndarray, scale: Scale, alt: str, title: str) -> str:
    tiny = ' class="tiny"' if mask.shape[1] <= 128 else ""
    source = picture(values, mask=mask, scale=scale)
    return (
        f'<figure><img{tiny} src="{source}" alt="{escape(alt)}">'
        f"<figcaption>{escape(title)}</figcaption></figure>"
    )


# --- time courses -------------------------------------------------------------------------------


def _courses(store: Store) -> str:
    out = [
        "<p>The mean over the cortex, in per cent of its mean within each run; runs one after "
        "another, upright lines between them, "
        '<span style="color:var(--accent)">train runs</span> and '
        '<span style="color:var(--extra-2)">test runs</span> in their colours. Slow waves of a per '
        "cent or two are usual. A first volume that sticks out was recorded before the steady "
        "state and should be dropped; jumps and spikes are motion.</p>"
    ]
    for number, subject in enumerate(store.attributes.subjects):
        parts = courses(store, subject)
        if not parts:
            continue
        svg = figures.time_course(
            [course for _, course in parts],
            marked=[run["split"] == "test" for run, _ in parts],
            step=store.attributes.repetition_time,
            salt=f"course{number}",
            label=f"Mean signal of the cortex over all runs, subject {subject}",
        )
        order = listing([str(run["name"]) for run, _ in parts])
        out.append(
            f'<figure class="course"><figcaption>subject {escape(subject)}, runs {escape(order)}'
            f"</figcaption>{svg}</figure>"
        )
    return "".join(out)


# --- clips --------------------------------------------------------------------------------------


def _times(store: Store) -> tuple[float, float]:
    """Seconds of a window, and until clip and window start again."""
    window = store.attributes.window * store.attributes.repetition_time
    return window, max(window, store.attributes.clip_seconds)


def _frames(store: Store) -> int:
    return store.video("test", [0]).shape[1] if store.num_clips("test") else 1


def _rhythm(store: Store) -> str:
    about, frames, period = store.attributes, _frames(store), _times(store)[1]
    return "\n".join(
        keyframes(name, cells=cells, seconds=seconds, period=period)
        for name, cells, seconds in (
            ("film", frames, about.clip_seconds / frames),
            ("window", about.window, about.repetition_time),
        )
    )


def _clips(store: Store, number: int) -> str:
    about, mask = store.attributes, store.mask
    picks = spread_evenly(store, clips=number)
    if not picks:
        return absent_note("No clips were asked for, or the store holds no test sample.")
    maps = store.fmri("test", picks, subjects=about.subjects).astype(np.float32)
    there = store.present("test", subjects=about.subjects)[picks]
    scale = Scale.around_zero(figures.map_limit([maps[there]], mask))
    window, period = _times(store)
    wait = (
        f" The window is longer than the clip, so the clip fades after {about.clip_seconds:g} s and "
        f"starts again with its window, every {period:g} s."
        if window > about.clip_seconds
        else f" Both start again every {period:g} s."
    )
    out = [
        f"<p>{_number(len(picks), 'test clip')} of {store.num_clips('test'):,}, evenly spread over "
        "the test set and not chosen. Beside each plays its window of maps in the same rhythm, "
        f"shifted by the lag: the map beside a frame was recorded about {about.lag_seconds:g} s "
        f"after it.{wait} Activity should come and go smoothly, and similar patterns should show "
        "in all subjects; flicker from volume to volume is noise.</p>"
    ]
    crop = cropped(mask)
    cell = (crop[0].stop - crop[0].start, crop[1].stop - crop[1].start)
    for row, pick in enumerate(picks):
        frames = _smaller(store.video("test", [pick])[0])
        caption = about.captions["test"][pick]
        shown = [
            _cell(
                playing(
                    film(frames),
                    name="film",
                    shape=frames.shape[1:3],
                    alt=f"Test clip {about.clips['test'][pick]}: {caption}",
                ),
                "the clip",
            )
        ]
        for i, subject in enumerate(about.subjects):
            if not there[row, i]:
                shown.append(_cell('<p class="absent">no sample</p>', f"subject {subject}"))
                continue
            strip = picture(maps[row, i], mask=mask, scale=scale)
            alt = f"Flat maps of subject {subject} during clip {about.clips['test'][pick]}"
            shown.append(
                _cell(playing(strip, name="window", shape=cell, alt=alt), f"subject {subject}")
            )
        columns = min(len(shown), COLUMNS)
        out.append(
            f'<figure class="shown" style="--columns:{columns}"><figcaption><b>'
            f"{escape(about.clips['test'][pick])}</b> <span class='caption'>{escape(caption)}"
            f"</span></figcaption>{''.join(shown)}</figure>"
        )
    out.append(colour_bar(scale, unit="z", label="Colour scale from below to above the run's mean"))
    return "".join(out)


def _cell(content: str, name: str) -> str:
    return f"<div>{content}<span>{escape(name)}</span></div>"


def _smaller(frames: np.ndarray) -> np.ndarray:
    height, width = frames.shape[1:3]
    if width <= WIDEST:
        return frames
    return resize(frames, resolution=(max(1, round(height * WIDEST / width)), WIDEST))


# --- between subjects ---------------------------------------------------------------------------


def _subjects(store: Store, inspection: Inspection) -> str:
    pairs = inspection.pairs
    if not pairs:
        return absent_note("There is one subject, so there is nobody to correlate with.")
    samples = sorted({pair.samples for pair in pairs})
    least = samples[0]
    counts = f"{least:,}" if len(samples) == 1 else f"{least:,} to {samples[-1]:,}"
    words = (
        f"Correlation of each pixel between two subjects over the volumes of the {counts} test "
        "samples that both have, before any alignment. Visual cortex should be above zero, most so "
        "in early areas; since brains differ in anatomy and function, values stay well below the "
        "reliability. A pair around zero everywhere means that clips or times do not match."
    )
    if least:
        words += (
            f" Over {least:,} samples, chance alone keeps a pixel mostly within "
            f"±{2 / math.sqrt(least):.2f}."
        )
    if len(pairs) <= MOST_PAIRS:
        maps = [pair.correlation for pair in pairs]
        names = [
            f"subjects {' and '.join(pair.subjects)}: mean {value_text(pair.mean, digits=3)}"
            for pair in pairs
        ]
    else:
        maps = [_with_others(pairs, subject) for subject in store.attributes.subjects]
        names = [f"subject {subject} with the others" for subject in store.attributes.subjects]
        words += f" Of {len(pairs)} pairs, each subject's are averaged here."
    scale = Scale.around_zero(figures.map_limit(maps, store.mask))
    row = _row(store, "Inter-subject correlation", words, maps, scale, unit="r", names=names)
    return row + (_matrix(store.attributes.subjects, pairs) if len(pairs) > 1 else "")


def _with_others(pairs: Sequence[Pair], subject: str) -> np.ndarray:
    maps = np.stack([pair.correlation for pair in pairs if subject in pair.subjects])
    known = np.isfinite(maps)
    total = np.where(known, maps, 0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)


def _matrix(subjects: Sequence[str], pairs: Sequence[Pair]) -> str:
    mean = {pair.subjects: pair.mean for pair in pairs}
    mean |= {(second, first): value for (first, second), value in mean.items()}
    head = "".join(f"<th scope='col'>{escape(subject)}</th>" for subject in subjects)
    rows = []
    for first in subjects:
        cells = [
            "" if first == second else value_text(mean[first, second], digits=3)
            for second in subjects
        ]
        body = "".join(f"<td>{cell}</td>" for cell in cells)
        rows.append(f"<tr><th scope='row' class='text'>{escape(first)}</th>{body}</tr>")
    return (
        "<div class='scroll' tabindex='0'><table><caption>Mean over the cortex</caption><thead><tr>"
        f"<th scope='col' class='text'>subject</th>{head}</tr></thead><tbody>{''.join(rows)}"
        "</tbody></table></div>"
    )


# --- provenance ---------------------------------------------------------------------------------


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
        f"<p>Prepared from {_number(len(files), 'file')}, {_bytes(size)}. The store's "
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


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m glfa_jax.data.look", description="HTML page that shows a prepared store"
    )
    parser.add_argument("store", type=Path, metavar="STORE", help="what data.prepare wrote")
    parser.add_argument(
        "--out", type=Path, metavar="FILE.html", help="where to; beside the store if left out"
    )
    parser.add_argument(
        "--clips", type=int, default=CLIPS, metavar="N", help=f"clips to show, {CLIPS} by default"
    )
    options = parser.parse_args(arguments)
    path = options.store.resolve()
    target = options.out or path.with_name(f"{path.name.removesuffix('.zarr')}.html")
    try:
        if options.clips < 0:
            raise InputError(f"--clips: must be a number >= 0, got {options.clips}")
        write(Store.open(options.store), target, clips=options.clips, progress=True)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"page: {target} (open it in a browser)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
