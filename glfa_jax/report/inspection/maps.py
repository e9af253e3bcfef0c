"""The sections of flat maps: of each subject, and of each pair of subjects."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from glfa_jax.data.store import Store
from glfa_jax.report.inspection.inspection import Inspection, Pair
from glfa_jax.report.pictures import DARK_LIGHT, Scale, map_row
from glfa_jax.report.tables import Table, cells
from glfa_jax.report.words import listing, value_text

# More pairs of subjects than these have their maps averaged over each subject's pairs.
MOST_PAIRS = 10


def maps_section(store: Store, inspection: Inspection) -> list[dict[str, Any]]:
    mask, subjects = store.mask, store.attributes.subjects
    mean, tsnr, reliability = (
        [store.quality(kind, subject) for subject in subjects]
        for kind in ("mean", "tsnr", "reliability")
    )
    coverage = [inspection.signals[subject].moving.astype(np.float32) for subject in subjects]
    unrepeated = [subject for subject in subjects if store.attributes.repeats[subject] < 2]
    for i, subject in enumerate(subjects):
        if subject in unrepeated:
            reliability[i] = np.full_like(reliability[i], np.nan)
    without = f" Without repeats: subject {listing(unrepeated)}." if unrepeated else ""
    row = partial(map_row, titles=[f"subject {subject}" for subject in subjects], mask=mask)
    return [
        row(
            "Mean signal",
            mean,
            note="The raw signal averaged over all volumes and runs, in the scanner's units. It "
            "should change smoothly and be of one level; dark holes near the rim are where the "
            "signal drops out beside air, sharp edges are where coverage ends.",
            scale=Scale.spanning([values[mask] for values in mean]),
            unit="",
        ),
        row(
            "Temporal signal-to-noise ratio",
            tsnr,
            note="Mean over standard deviation of each pixel within a run, averaged over runs. "
            "Higher is steadier. One hemisphere or subject far below the others points to motion, "
            "to a wrong file or to poor coverage; stripes or single bright patches, to masked or "
            "filled data.",
            scale=Scale.spanning([values[mask] for values in tsnr], from_zero=True),
            unit="",
        ),
        row(
            "Repeat reliability",
            reliability,
            note="Correlation between the averages of odd and of even showings of the test clips. "
            "Early visual cortex should be the most reliable. Values around zero everywhere mean "
            "that the times of the clips, the order of runs or the repeat numbers are wrong, or "
            f"that there is little signal.{without}",
            scale=Scale.around_zero(reliability, mask),
            unit="r",
        ),
        row(
            "Mask and coverage",
            coverage,
            note="Yellow: pixels of the region that carry signal. Purple: pixels of the region "
            "that never vary, which should be few or none. Clear: outside the region; nothing "
            "there reaches the models.",
            scale=Scale(0.0, 1.0, DARK_LIGHT),
        ),
    ]


def between_section(store: Store, inspection: Inspection) -> dict[str, Any] | None:
    """row of maps, and a matrix of all pairs where they are many; None with one subject."""
    pairs, subjects = inspection.pairs, store.attributes.subjects
    if not pairs:
        return None
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
        titles = [
            f"subjects {' and '.join(pair.subjects)}: mean {value_text(pair.mean, digits=3)}"
            for pair in pairs
        ]
    else:
        maps = [_with_others(pairs, subject) for subject in subjects]
        titles = [f"subject {subject} with the others" for subject in subjects]
        words += f" Of {len(pairs)} pairs, each subject's are averaged here."
    row = map_row(
        "Inter-subject correlation",
        maps,
        titles,
        mask=store.mask,
        scale=Scale.around_zero(maps, store.mask),
        unit="r",
        note=words,
    )
    return {"row": row, "matrix": _matrix(subjects, pairs) if len(pairs) > 3 else None}


def _with_others(pairs: Sequence[Pair], subject: str) -> np.ndarray:
    maps = np.stack([pair.correlation for pair in pairs if subject in pair.subjects])
    known = np.isfinite(maps)
    total = np.where(known, maps, 0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)


def _matrix(subjects: Sequence[str], pairs: Sequence[Pair]) -> Table:
    mean = {pair.subjects: value_text(pair.mean, digits=3) for pair in pairs}
    mean |= {(second, first): text for (first, second), text in mean.items()}
    return Table(
        title="Table of correlations",
        labels=1,
        head=cells(["subject", *subjects]),
        rows=tuple(
            cells([first, *(mean.get((first, second), "") for second in subjects)])
            for first in subjects
        ),
        caption="Mean over the cortex",
    )
