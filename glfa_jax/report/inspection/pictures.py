"""The sections of flat maps: of each subject, and of each pair of subjects."""

import math
from collections.abc import Sequence

import numpy as np

from glfa_jax.data.layouts import LAYOUTS
from glfa_jax.data.store import Store
from glfa_jax.report import figures
from glfa_jax.report.html import escape
from glfa_jax.report.inspection.inspection import Inspection, Pair
from glfa_jax.report.maps import DARK_LIGHT, Scale, colour_bar, picture
from glfa_jax.report.words import absent_note, listing, value_text

# More pairs of subjects than these have their maps averaged over each subject's pairs.
MOST_PAIRS = 10
COLUMNS = 4


def maps_section(store: Store, inspection: Inspection) -> str:
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
    layout = LAYOUTS.get(store.attributes.layout)
    side = (
        ""  # of a layout that this installation does not have
        if layout is None
        else "Left hemisphere on the left, right hemisphere on the right, dorsal up."
        if layout.mask is None
        else "The flat map is the picture that the data set itself uses."
    )
    parts = [
        f"<p>{side} All subjects of a row share one colour scale; the most extreme 1 % of values "
        "lie beyond it and take its end colours.</p>",
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
            "Mean over standard deviation of each pixel within a run, averaged over runs. Higher "
            "is steadier. One hemisphere or subject far below the others points to motion, to a "
            "wrong file or to poor coverage; stripes or single bright patches, to masked or "
            "filled data.",
            maps["tsnr"],
            Scale.spanning(cortex["tsnr"], from_zero=True),
            unit="",
        ),
        _row(
            store,
            "Repeat reliability",
            "Correlation between the averages of odd and of even showings of the test clips. Early "
            "visual cortex should be the most reliable. Values around zero everywhere mean that "
            "the times of the clips, the order of runs or the repeat numbers are wrong, or that "
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
            Scale(0.0, 1.0, DARK_LIGHT),
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


def between_section(store: Store, inspection: Inspection) -> str:
    pairs = inspection.pairs
    if not pairs:
        return absent_note("There is one subject, so there is nobody to correlate with.")
    samples = sorted({pair.samples for pair in pairs})
    least = samples[0]
    counts = f"{least:,}" if len(samples) == 1 else f"{least:,} to {samples[-1]:,}"
    words = (
        f"Correlation of each pixel between two subjects over the volumes of the {counts} test "
        "samples that both have, before any alignment. It should be above zero, most so in early "
        "areas, and only moderate, since brains differ in anatomy and function. A pair around "
        "zero everywhere means that clips or times do not match."
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
    return row + (_matrix(store.attributes.subjects, pairs) if len(pairs) > 3 else "")


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
