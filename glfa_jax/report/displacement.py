"""Displacements between subjects as arrows on the flat map, and what they amount to in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from glfa_jax.report.figures import Arrows, arrows, grid_of
from glfa_jax.report.inputs import Maps
from glfa_jax.report.words import value_text

READING = (
    "Only differences between subjects can be told from fMRI: an arrow leads from where the "
    "training subjects respond, on average, to where this subject responds alike."
)


@dataclass(frozen=True)
class Cortex:
    """What arrows are drawn on. curvature: positive in sulci, or None. pixel_mm: None where the
    size of a pixel is not known."""

    mask: Bool[ndarray, "h w"]
    curvature: Float[ndarray, "h w"] | None
    pixel_mm: float | None

    @property
    def unit(self) -> str:
        return "px" if self.pixel_mm is None else "mm"

    def length(self, pixels: float) -> str:
        return f"{value_text(pixels * (self.pixel_mm or 1), digits=1)} {self.unit}"

    def size(self, field: Float[ndarray, "h w 2"]) -> float:
        """Root mean square length over the cortex, in pixels."""
        return float(np.sqrt(np.square(field[self.mask]).sum(-1).mean()))


def displacement_section(
    maps: Maps, *, trained: Sequence[str], decoded: Sequence[str]
) -> dict[str, Any] | None:
    """subjects: of each decoded one a name, a sentence and figures; how: to read the arrows.

    None where no layer fetches from one place, or there is no training subject to compare with.
    """
    cortex = Cortex(maps.mask, maps.curvature, maps.pixel_mm)
    drawn = []
    for subject in decoded:
        others = [i for i, s in enumerate(maps.subjects) if s in trained and s != subject]
        if maps.shifts is None or subject not in maps.subjects or not others:
            continue
        index = maps.subjects.index(subject)
        found, truth = maps.shifts[index] - maps.shifts[others].mean(0), None
        if maps.displacements is not None:
            # To bring both together, layers must differ as displacements do, the other way round.
            truth = maps.displacements[others].mean(0) - maps.displacements[index]
        drawn.append((subject, found, truth))
    fields = [field for _, *pair in drawn for field in pair if field is not None]
    if not any(field.any() for field in fields):
        return None
    scale = grid_of(fields, mask=cortex.mask)
    return {
        "subjects": [
            {
                "name": f"Displacement of subject {subject}",
                "words": _words(subject, found, truth, cortex),
                "figures": _figures(subject, found, truth, cortex, scale),
            }
            for subject, found, truth in drawn
        ],
        "how": how_drawn(scale, cortex),
    }


def arrow_figure(
    field: Float[ndarray, "h w 2"], *, cortex: Cortex, scale: Arrows, salt: str, label: str
) -> Any:
    """field: rows and columns in pixels."""
    return arrows(
        field,
        mask=cortex.mask,
        curvature=cortex.curvature,
        scale=scale,
        pixel_size=cortex.pixel_mm or 1,
        unit=cortex.unit,
        salt=salt,
        label=label,
    )


def how_drawn(scale: Arrows, cortex: Cortex) -> str:
    """For those who look at the arrows."""
    side = cortex.length(scale.spacing)
    long = f"{value_text(scale.magnification, digits=1)} times as long as it is"
    if scale.magnification == 1:
        long = "to the scale of the map"
    text = f"{READING} Each arrow is the mean over a square of {side}, drawn {long}."
    return text + (" Sulci are darker." if cortex.curvature is not None else "")


def agreement(one: Float[ndarray, "h w 2"], two: Float[ndarray, "h w 2"], cortex: Cortex) -> float:
    """Pearson correlation over the cortex, rows and columns together."""
    return float(np.corrcoef(one[cortex.mask].ravel(), two[cortex.mask].ravel())[0, 1])


def _words(subject: str, found: ndarray, truth: ndarray | None, cortex: Cortex) -> str:
    if not found.any():
        text = (
            f"Subject {subject} and the training subjects share one layer, so no displacement "
            "between them was found"
        )
        if truth is None:
            return f"{text}."
        return f"{text}; the true one is {cortex.length(cortex.size(truth))} (root mean square)."
    size = cortex.length(cortex.size(found))
    text = f"The displacement found for subject {subject} is {size} (root mean square over cortex)"
    if truth is None or not truth.any():
        return f"{text}."
    return (
        f"{text}, the true one {cortex.length(cortex.size(truth))}, and they correlate with "
        f"{value_text(agreement(found, truth, cortex), digits=2)}."
    )


def _figures(
    subject: str, found: ndarray, truth: ndarray | None, cortex: Cortex, scale: Arrows
) -> list[tuple[Any, str]]:
    """Drawings with what stands below them."""
    shown = [("found", found)] if found.any() else []
    shown += [("true", truth)] if truth is not None else []
    return [
        (
            arrow_figure(
                field,
                cortex=cortex,
                scale=scale,
                salt=f"{kind}-{subject}",
                label=f"Flat map of visual cortex with arrows: {kind} displacement of "
                f"subject {subject}",
            ),
            f"{kind}, subject {subject}",
        )
        for kind, field in shown
    ]
