"""The alignment of the report: maps, correlations and displacements, before and after."""

import math
from typing import Any

import numpy as np

from glfa_jax.config import Protocol
from glfa_jax.report.charts import Chart, Point, floor_of
from glfa_jax.report.displacement import displacement_section
from glfa_jax.report.inputs import Maps
from glfa_jax.report.pictures import Scale, colour_bar, map_row
from glfa_jax.report.words import value_text

_WHERE = (
    "Correlation over time of each pixel between a decoded subject and another one, mean over such "
    "pairs, over the test clips that all have."
)


def correlation_maps(
    before: np.ndarray | None, after: np.ndarray | None, *, mask: np.ndarray, note: str
) -> dict[str, Any] | None:
    """Two maps (h, w) on one scale; None where one is not known anywhere."""
    if before is None or after is None:
        return None
    both = (before[mask], after[mask])
    if not all(np.isfinite(values).any() for values in both):
        return None
    titles = [
        f"{when} alignment: mean {value_text(float(np.nanmean(values)))}"
        for when, values in zip(("before", "after"), both, strict=True)
    ]
    return map_row(
        "Where subjects respond alike",
        [before, after],
        titles,
        mask=mask,
        scale=Scale.around_zero([before, after], mask),
        unit="r",
        note=note,
        words="Flat map of visual cortex, correlation {title}",
    )


def alignment_section(maps: Maps, protocol: Protocol) -> dict[str, Any]:
    """correlation: sentences; chart, rows of maps and their bar; change: of the maps, root mean
    square in z-scores; where: the correlation at every pixel, and displaced: the displacements,
    None where they are not known."""
    scale = Scale.around_zero([maps.before, maps.after], maps.mask)
    rows = [
        map_row(
            f"{when.capitalize()} alignment",
            stack,
            [f"subject {subject}" for subject in maps.subjects],
            mask=maps.mask,
            scale=scale,
            words=f"Flat map of visual cortex, {{title}}, {when} alignment",
        )
        for when, stack in (("before", list(maps.before)), ("after", list(maps.after)))
    ]
    moved = (maps.after - maps.before)[:, maps.mask].astype(np.float64)
    words = "Colour scale from blue, below the mean, through dark, at the mean, to yellow, above it"
    return {
        "correlation": _correlation(maps),
        "chart": _chart(maps),
        "where": correlation_maps(
            maps.correlation_before, maps.correlation_after, mask=maps.mask, note=_WHERE
        ),
        "displaced": displacement_section(
            maps, trained=protocol.train_subjects, decoded=protocol.test_subjects
        ),
        "change": float(np.sqrt(np.nanmean(moved**2))),
        "rows": rows,
        "bar": colour_bar(scale, unit="z", words=words),
    }


def _correlation(maps: Maps) -> str:
    before, after = maps.isc_before, maps.isc_after
    if before is None or after is None:
        return "The correlation between subjects was not measured; it takes at least two subjects."
    verdict = "rose from" if after > before else "did not rise: it was"
    text = (
        f"The mean correlation between subjects over the test clips {verdict} "
        f"{value_text(before)} {'to' if after > before else 'before and'} {value_text(after)} "
        f"{'with' if after > before else 'after'} alignment."
    )
    if maps.isc_one_kernel is not None:
        text += f" Smoothing alike everywhere would give {value_text(maps.isc_one_kernel)}."
    if maps.undone is not None:
        text += " Of the displacement between subjects, which is known here, " + (
            f"their layers undo {100 * maps.undone:.0f} %."
            if maps.undone
            else "one layer for all undoes nothing."
        )
    return text


def _chart(maps: Maps) -> Chart | None:
    before, after = maps.isc_before, maps.isc_after
    if before is None or after is None:
        return None
    top = min(1.0, math.ceil(min(1.0, max(0.2, before, after)) * 10 + 0.5) / 10)
    points = [Point("before alignment", before, filled=False)]
    points += [Point("after alignment", after, filled=True)]
    return Chart(points, (floor_of([before, after]), top), title="Inter-subject correlation")
