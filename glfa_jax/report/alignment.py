"""The alignment of the report: flat maps and inter-subject correlation before and after."""

import math

import numpy as np

from glfa_jax.config import Config
from glfa_jax.report import figures
from glfa_jax.report.html import escape
from glfa_jax.report.inputs import Maps
from glfa_jax.report.words import absent_note, value_text


def alignment_section(maps: Maps | None, config: Config) -> str:
    if maps is None:
        return absent_note(
            "The run folder holds no alignment.npz, so there are no maps to show."
            if config.aligned
            else "The alignment layer (GLFA) was off in this run, so there are no maps to show."
        )
    limit = figures.map_limit([maps.before, maps.after], maps.mask)
    tiny = ' class="tiny"' if maps.mask.shape[1] <= 128 else ""
    rows = []
    for name, words, stack in (
        ("Before alignment", "before", maps.before),
        ("After alignment", "after", maps.after),
    ):
        rows.append(f"<h3>{name}</h3>")
        for subject, values in zip(maps.subjects, stack, strict=True):
            source = figures.flat_map(values, mask=maps.mask, limit=limit)
            alt = escape(f"Flat map of visual cortex, subject {subject}, {words} alignment")
            rows.append(
                f'<figure><img{tiny} src="{source}" alt="{alt}">'
                f"<figcaption>subject {escape(subject)}</figcaption></figure>"
            )
    moved = (maps.after - maps.before)[:, maps.mask].astype(np.float64)
    change = float(np.sqrt(np.nanmean(moved**2)))
    return (
        f"<p>{escape(_correlation(maps))}</p>{_correlation_chart(maps)}"
        "<p>The same stimulus in each subject, on the flattened visual cortex (both hemispheres "
        "side by side where the store holds both). Alignment is meant to make the maps of one row "
        f"more alike; here it changed them by {change:.2f} z (root mean square).</p>"
        f'<div class="maps" style="--columns:{len(maps.subjects)}">{"".join(rows)}</div>'
        f'<div class="bar"><span>−{limit:.1f}</span>'
        f'<img src="{figures.colour_bar()}" alt="Colour scale from blue, below the mean, '
        f'through dark, at the mean, to yellow, above it"><span>+{limit:.1f} z</span></div>'
        '<p class="note">BOLD in z-scores per run. All maps share these limits (99th percentile of '
        "|z|); what lies beyond takes the end colours.</p>"
    )


def _correlation(maps: Maps) -> str:
    before, after = maps.isc_before, maps.isc_after
    if not (math.isfinite(before) and math.isfinite(after)):
        return "The correlation between subjects was not measured; it takes at least two subjects."
    verdict = "rose from" if after > before else "did not rise: it was"
    text = (
        f"The mean correlation between subjects over the test clips {verdict} "
        f"{value_text(before)} {'to' if after > before else 'before and'} {value_text(after)} "
        f"{'with' if after > before else 'after'} alignment."
    )
    if maps.one_kernel is not None:
        text += f" Smoothing alike everywhere would give {value_text(maps.one_kernel)}."
    if maps.undone is not None:
        text += " Of the displacement between subjects, which is known here, " + (
            f"their layers undo {100 * maps.undone:.0f} %."
            if maps.undone
            else "one layer for all undoes nothing."
        )
    return text


def _correlation_chart(maps: Maps) -> str:
    values = [maps.isc_before, maps.isc_after]
    if not all(math.isfinite(value) for value in values):
        return ""
    top = min(1.0, math.ceil(max([0.2, *values]) * 10 + 0.5) / 10)
    span = (min(0.0, math.floor(min(values) * 5) / 5), top)
    rows = []
    for name, value in zip(("before alignment", "after alignment"), values, strict=True):
        strip = figures.interval(
            value,
            low=None,
            high=None,
            mark=None,
            span=span,
            filled=name.startswith("after"),
            label=f"Inter-subject correlation {name}: {value_text(value)}",
        )
        rows.append(
            f'<div class="row"><span>{name}</span>{strip}'
            f'<span class="value">{value_text(value)}</span></div>'
        )
    return (
        f'<div class="dots">{"".join(rows)}<div class="row"><span></span>{figures.axis(span)}'
        f'<span></span></div></div><p class="note">Inter-subject correlation.</p>'
    )
